import EventLoop
import FoundationEssentials
import Glibc
import SluiceTesting

/// A benchmark of streams through nginx and Sluice. Run it from the package directory:
///
///     swift build -c release --static-swift-stdlib
///     .build/release/sluice-bench --streams 1000 --rate 20 --seconds 20
///
/// `--patterns N` measures the cost of redaction with N of three typical patterns.
/// The benchmark runs itself within `nginx/demo`. Compare ratios only: absolute metrics depend on the machine.
@main
struct Bench {
  static func main() {
    do {
      let options = try Options(CommandLine.arguments)
      let environment = ProcessInfo.processInfo.environment
      if environment["SLUICE_URL"] == nil { try runInDemo(options) }
      try Run(options, environment).go()
    } catch {
      print("sluice-bench: \(error)")
      exit(1)
    }
  }

  /// Replaces this process with `nginx/demo`, which starts the servers and then runs this program again.
  private static func runInDemo(_ options: Options) throws {
    setenvUnlessSet("SLUICE_UPSTREAM_URL", "http://127.0.0.1:\(options.upstreamPort)/v1")
    setenvUnlessSet("SLUICE_LOG", "error")
    setenvUnlessSet("SLUICE_MAX_STREAMS", "100000")
    setenvUnlessSet("SLUICE_STREAMS_PER_USER", "0")
    setenvUnlessSet("SLUICE_MESSAGES_PER_HOUR", "0")
    if options.patterns > 0 { setenvUnlessSet("SLUICE_REDACT_FILE", try patternsFile(options.patterns)) }
    let arguments = ["nginx/demo", "--no-build", "--"] + CommandLine.arguments
    var pointers = unsafe arguments.map { unsafe strdup($0) } + [nil]
    unsafe execv("nginx/demo", &pointers)
    throw SystemError("run nginx/demo from the package's directory")
  }

  private static func patternsFile(_ count: Int) throws -> String {
    let patterns = [
      #"e-mail  [A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"#,
      #"key  sk-[A-Za-z0-9_-]{20,400}  [key]"#, #"card  \b(?:\d[ -]?){13,19}\b  [card number]"#,
    ]
    let path = "\(temporaryDirectory)sluice-bench-patterns"
    let text = Array((patterns.prefix(count).joined(separator: "\n") + "\n").utf8)
    let file = try Descriptor(unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600), from: "make \(path)")
    guard unsafe write(file.number, text, text.count) == text.count else { throw SystemError("write \(path)") }
    return path
  }

  private static let temporaryDirectory = (ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp") + "/"

  private static func setenvUnlessSet(_ name: String, _ value: String) { unsafe setenv(name, value, 0) }
}

struct Options: Sendable {
  var streams = 1000
  var rate = 20.0
  var seconds = 20.0
  var upstreamPort: UInt16 = 9117
  var patterns = 0

  init(_ arguments: [String]) throws {
    var words = arguments.dropFirst()
    while let name = words.popFirst() {
      guard let value = words.popFirst(), let number = Double(value), number > 0 else {
        throw Issue(description: "\(name) needs a number above 0")
      }
      switch name {
      case "--streams": streams = Int(number)
      case "--rate": rate = number
      case "--seconds": seconds = number
      case "--upstream-port": upstreamPort = UInt16(clamping: Int(number))
      case "--patterns": patterns = Int(number)
      default:
        throw Issue(
          description: "--streams N, --rate TOKENS_A_SECOND, --seconds S, --upstream-port N, --patterns N")
      }
    }
  }

  struct Issue: Error, CustomStringConvertible {
    let description: String
  }
}

struct Run {
  private let options: Options
  private let port: UInt16
  private let token: String
  private let sluice: Int
  private let nginx: Int

  private static let rampSeconds = 3.0
  private static let warmUpSeconds = 2.0

  init(_ options: Options, _ environment: [String: String]) throws {
    self.options = options
    guard let url = environment["SLUICE_URL"], let port = url.split(separator: ":").last.flatMap({ UInt16($0) }),
      let token = environment["SLUICE_TOKEN"], let sluice = environment["SLUICE_PID"].flatMap({ Int($0) }),
      let master = environment["SLUICE_NGINX_PID"].flatMap({ Int($0) }),
      let worker = ProcessUsage.children(of: master).first
    else { throw Options.Issue(description: "SLUICE_URL and the rest must come from nginx/demo") }
    self.port = port
    self.token = token
    self.sluice = sluice
    self.nginx = worker
  }

  func go() throws {
    let total = Self.rampSeconds + Self.warmUpSeconds + options.seconds + 2
    let profile = LoadUpstream.Profile(tokensPerSecond: options.rate, tokens: Int(options.rate * total))
    let upstreamLoop = try EventLoop(name: "upstream")
    let upstreamThread = try LoopThread(upstreamLoop)
    let socket = try Loopback.listen(port: options.upstreamPort).release()
    upstreamLoop.execute { reactor in
      do {
        // Attached to the loop, because the upstream's own callbacks do not retain it.
        let upstream = try LoadUpstream(Descriptor(owning: socket), profile: profile, on: reactor)
        _ = reactor.attachment(for: upstream) { upstream }
      } catch { fatalError("\(error)") }
    }
    defer { upstreamThread.stop() }
    let loop = try EventLoop(name: "clients")
    try loop.run { reactor in
      let measurement = Measurement(self, reactor)
      _ = reactor.attachment(for: measurement) { measurement }
      measurement.begin()
    }
  }

  /// The client side, from the first stream to the printed metrics.
  private final class Measurement {
    private let run: Run
    private let reactor: Reactor
    private var client: LoadClient?
    private let idle: ProcessUsage
    /// The usage with a few streams open. Memory allocated once, for the first stream, is not a per-stream cost.
    private var baseline = ProcessUsage()
    private static let firstStreams = 20

    init(_ run: Run, _ reactor: Reactor) {
      self.run = run
      self.reactor = reactor
      idle = ProcessUsage(of: run.sluice)
    }

    func begin() {
      let client = LoadClient(port: run.port, token: run.token, on: reactor) { [unowned self] in end() }
      self.client = client
      let streams = run.options.streams
      let first = min(Self.firstStreams, streams - 1)
      for _ in 0..<first { client.open() }
      _ = reactor.schedule(after: .seconds(1)) { [unowned self] in baseline = ProcessUsage(of: run.sluice) }
      for index in first..<streams {
        let delay = Duration.seconds(1 + Run.rampSeconds * Double(index - first) / Double(streams))
        _ = reactor.schedule(after: delay) { client.open() }
      }
      _ = reactor.schedule(after: .seconds(1 + Run.rampSeconds + Run.warmUpSeconds)) { [unowned self] in measure() }
      // Bounds the run: a stream that is still open by then has failed.
      let patience = Run.rampSeconds + Run.warmUpSeconds + run.options.seconds + 30
      _ = reactor.schedule(after: .seconds(patience)) { [unowned self] in
        print("sluice-bench: \(client.openStreams) streams did not end")
        reactor.loop.stop()
      }
    }

    private func measure() {
      guard let client else { return }
      let before = (sluice: ProcessUsage(of: run.sluice), nginx: ProcessUsage(of: run.nginx))
      let (tokens, open) = (client.report.tokens, client.openStreams)
      client.isMeasuring = true
      _ = reactor.schedule(after: .seconds(run.options.seconds)) { [unowned self] in
        client.isMeasuring = false
        let after = (sluice: ProcessUsage(of: run.sluice), nginx: ProcessUsage(of: run.nginx))
        let count = Double(max(1, client.report.tokens - tokens))
        let sluice = Double(after.sluice.cpu - before.sluice.cpu) / count / 1000
        let nginx = Double(after.nginx.cpu - before.nginx.cpu) / count / 1000
        print("streams open                  \(open)")
        print("tokens a second               \(Int(count / run.options.seconds))")
        print("CPU a token, sluice           \(rounded(sluice)) µs")
        print("CPU a token, nginx worker     \(rounded(nginx)) µs")
        print("ratio sluice / nginx          \(rounded(sluice / nginx))")
        let memory = Double(after.sluice.memory - baseline.memory) / Double(max(1, open - Self.firstStreams)) / 1024
        print("memory of a further stream    \(rounded(memory)) KiB")
        let latencies = client.report.latencies.sorted()
        if !latencies.isEmpty {
          print("latency p50                   \(latencies[latencies.count / 2] / 1000) µs")
          print("latency p99                   \(latencies[latencies.count * 99 / 100] / 1000) µs")
        }
      }
    }

    private func end() {
      guard let report = client?.report, report.completed + report.failures >= run.options.streams else { return }
      print("completed                     \(report.completed)")
      print("failures                      \(report.failures) \(report.firstFailure)")
      let usage = ProcessUsage(of: run.sluice)
      print("descriptors before / after    \(idle.descriptors) / \(usage.descriptors)")
      print("memory before / after         \(idle.memory / 1024) / \(usage.memory / 1024) KiB")
      reactor.loop.stop()
    }

    private func rounded(_ value: Double) -> Double { (value * 100).rounded() / 100 }
  }
}
