import EventLoop
import Glibc
import JSON
import SluiceTesting

/// One leg of the benchmark: the model server and the clients on a loop each, and the figures.
struct Run: Sendable {
  private let options: Options

  init(_ options: Options) { self.options = options }

  /// Runs the scenario and returns its figures as one JSON object.
  func result() async throws -> String {
    let upstream = try LoopThread(EventLoop(name: "upstream"))
    defer { upstream.stop() }
    let activity = LoadUpstream.Activity()
    upstream.loop.execute { [options] reactor in
      do {
        // The loop retains the server.
        _ = try reactor.attachment(for: activity) {
          try LoadUpstream(
            try Loopback.listen(port: options.upstreamPort), profile: options.profile, activity: activity, on: reactor)
        }
      } catch {
        print("sluice-bench: \(error)")
        exit(1)
      }
    }
    return try await onLoop { reactor in try await Leg.figures(options, reactor, activity).json }
  }
}

extension Options {
  var profile: LoadUpstream.Profile {
    switch scenario {
    case .requests: LoadUpstream.Profile(tokensPerSecond: 1000, tokens: 1)
    case .flat: LoadUpstream.Profile(tokensPerSecond: 0, tokens: tokens)
    case .steady, .disconnect: LoadUpstream.Profile(tokensPerSecond: rate, tokens: tokens == 0 ? 1_000_000_000 : tokens)
    }
  }
}

/// The figures of a leg, by name.
struct Figures: Sendable {
  var numbers: [(name: String, value: Double)] = []
  var failure = ""

  var json: String {
    var members: JSON.Members = [:]
    for (name, value) in numbers { members[name] = .number(value.isFinite ? value : 0) }
    members["failure"] = .string(failure)
    return String(decoding: JSON.object(members).encoded, as: UTF8.self)
  }

  mutating func set(_ name: String, _ value: Double) { numbers.append((name, value)) }

  /// Sets the median and the 99th percentile of times in nanoseconds, in milliseconds.
  mutating func setPercentiles(_ name: String, _ times: [UInt32]) {
    let sorted = times.sorted()
    guard !sorted.isEmpty else { return }
    set(name + "P50", Double(sorted[sorted.count / 2]) / 1e6)
    set(name + "P99", Double(sorted[min(sorted.count - 1, sorted.count * 99 / 100)]) / 1e6)
  }
}

/// The steps of a leg, in a task on the client's loop.
struct Leg {
  private let options: Options
  private let reactor: Reactor
  private let activity: LoadUpstream.Activity
  private(set) var figures = Figures()

  /// The number of streams that are opened before the memory is measured, so that what the first stream loads is not
  /// counted.
  private static let firstStreams = 20
  private static let warmUp: Duration = .seconds(2)

  init(_ options: Options, _ reactor: Reactor, _ activity: LoadUpstream.Activity) {
    self.options = options
    self.reactor = reactor
    self.activity = activity
  }

  /// Runs the leg of `options` and returns its figures.
  static func figures(
    _ options: Options, _ reactor: Reactor, _ activity: LoadUpstream.Activity
  ) async throws -> Figures {
    var leg = Leg(options, reactor, activity)
    try await leg.run()
    return leg.figures
  }

  private mutating func run() async throws {
    try await reactor.sleep(for: .milliseconds(100))
    for (name, pid) in options.processes {
      figures.set("\(name)IdleMiB", Double(ProcessUsage(of: pid).memory) / 1_048_576)
    }
    switch options.scenario {
    case .steady: try await runSteady()
    case .requests: try await runRequests()
    case .flat: try await runFlat()
    case .disconnect: try await runDisconnect()
    }
  }

  private mutating func runSteady() async throws {
    var isReplacing = true
    var clients: LoadClient?
    let client = LoadClient(options, on: reactor) { if isReplacing { clients?.open() } }
    clients = client
    let first = min(Self.firstStreams, options.streams - 1)
    for _ in 0..<first { client.open() }
    try await reactor.sleep(for: .seconds(1))
    let baseline = memory
    // At most 1,500 requests per second, so that the requests do not pile up.
    for index in first..<options.streams {
      client.open()
      if index % 15 == 0 { try await reactor.sleep(for: .milliseconds(10)) }
    }
    // Streams that end must be replaced at their final rate.
    let lifetime = options.tokens > 0 ? Double(options.tokens) / options.rate : nil
    try await reactor.sleep(for: max(Self.warmUp, .seconds(lifetime ?? 0)))
    for (name, bytes) in memory {
      let more = Double(bytes - (baseline.first { $0.name == name }?.bytes ?? 0))
      figures.set("\(name)KiBPerStream", more / 1024 / Double(max(1, client.openStreams - first)))
    }
    let tokens = client.report.tokens
    client.isMeasuring = true
    let usage = Usage(options.processes)
    // Streams are replaced in the order in which they were opened, so a whole lifetime is measured.
    let seconds = lifetime ?? options.seconds
    try await reactor.sleep(for: .seconds(seconds))
    client.isMeasuring = false
    let count = Double(client.report.tokens - tokens)
    usage.set(&figures, per: count, "CPUPerToken")
    figures.set("tokensPerSecond", count / seconds)
    figures.set("open", Double(client.openStreams))
    figures.setPercentiles("latency", client.report.latencies)
    figures.setPercentiles("firstToken", client.report.firstTokens)
    setFailures(of: client)
    let expected = options.rate * seconds * Double(options.streams)
    if figures.failure.isEmpty, count < expected / 2, expected > 100 {
      figures.failure = "overloaded: \(Int(count)) of \(Int(expected)) tokens arrived"
    }
    isReplacing = false
    clients = nil
    client.disconnectAll()
  }

  private mutating func runRequests() async throws {
    let ended = Waiter()
    let client = LoadClient(options, on: reactor) { ended.wake() }
    for _ in 0..<50 {
      client.open()
      await ended.wait()
    }
    client.isMeasuring = true
    let usage = Usage(options.processes)
    for _ in 0..<options.requests {
      client.open()
      await ended.wait()
    }
    usage.set(&figures, per: Double(options.requests), "CPUPerRequest")
    figures.setPercentiles("firstToken", client.report.firstTokens)
    setFailures(of: client)
  }

  private mutating func runFlat() async throws {
    let ended = Waiter()
    let client = LoadClient(options, readsTokens: false, on: reactor) { ended.wake() }
    let start = nanoseconds()
    let usage = Usage(options.processes)
    client.open()
    await ended.wait()
    let seconds = Double(nanoseconds() - start) / 1e9
    usage.set(&figures, per: Double(options.tokens), "CPUPerToken")
    figures.set("tokensPerSecond", Double(options.tokens) / seconds)
    setFailures(of: client)
  }

  private mutating func runDisconnect() async throws {
    let client = LoadClient(options, on: reactor) {}
    for _ in 0..<options.streams {
      client.open()
      try await reactor.sleep(for: .milliseconds(2))
    }
    try await reactor.sleep(for: Self.warmUp)
    figures.set("open", Double(activity.count))
    let start = nanoseconds()
    client.disconnectAll()
    // A peer that does not notice is given up after 30 s.
    while activity.count > 0, nanoseconds() - start < 30_000_000_000 {
      try await reactor.sleep(for: .milliseconds(1))
    }
    figures.set("closedAfterMs", Double(nanoseconds() - start) / 1e6)
    setFailures(of: client)
  }

  private mutating func setFailures(of client: LoadClient) {
    figures.set("failures", Double(client.report.failures))
    figures.failure = client.report.firstFailure
  }

  private var memory: [(name: String, bytes: Int)] {
    options.processes.map { ($0.name, ProcessUsage(of: $0.pid).memory) }
  }
}

/// The CPU time of processes since a point in time.
private struct Usage {
  private let processes: [(name: String, pid: Int)]
  private let before: [UInt64]
  private let machine = ProcessUsage.machine
  private let own = ProcessUsage(of: Int(getpid())).cpu
  private let start = nanoseconds()

  init(_ processes: [(name: String, pid: Int)]) {
    self.processes = processes
    before = processes.map { ProcessUsage(of: $0.pid).cpu }
  }

  /// Sets the CPU time per `count` of each process, in microseconds, and the share of the machine that other processes
  /// used.
  func set(_ figures: inout Figures, per count: Double, _ name: String) {
    let elapsed = Double(nanoseconds() - start)
    var known = Double(ProcessUsage(of: Int(getpid())).cpu - own)
    for (process, before) in zip(processes, before) {
      let used = Double(ProcessUsage(of: process.pid).cpu - before)
      known += used
      figures.set("\(process.name)\(name)", used / max(1, count) / 1000)
    }
    let now = ProcessUsage.machine
    figures.set("foreignShare", max(0, Double(now.busy - machine.busy) - known) / elapsed / Double(now.processors))
  }
}
