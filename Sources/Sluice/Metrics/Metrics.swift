import EventLoop
import Glibc
import Upstream

/// The metrics of the process since its start, for `GET /metrics`. Thread-safe. A stream is counted once, when it has
/// terminated, so counting adds no cost per token.
final class Metrics: Sendable {
  private struct State {
    var streams: [StreamKey: Int] = [:]
    var refusals: [FailureKey: Int] = [:]
    var failures: [FailureKey: Int] = [:]
    var stored = 0
    var notStored = 0
    var deltas = 0
    var sentBytes = 0
    var resumed = 0
    var firstToken = Histogram(bounds: [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60])
    var gap = Histogram(bounds: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5])
    var duration = Histogram(bounds: [0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600])
    var deltasPerStream = Histogram(bounds: [1, 10, 30, 100, 300, 1000, 3000, 10000])
  }

  private struct StreamKey: Hashable {
    let route: String
    let outcome: Outcome
  }

  private struct FailureKey: Hashable {
    let code: Failure.Code
    let cause: String?

    init(_ failure: Failure) { (code, cause) = (failure.code, failure.cause) }

    var labels: String { "code=\"\(code.name)\",cause=\"\(cause ?? "")\"" }
  }

  private let state = Locked(State())
  /// The counts of connections to model servers.
  let upstreamConnections = ConnectionCounts()

  /// Counts a stream that has terminated.
  func countStream(
    route: String, _ outcome: Outcome, firstToken: Duration?, total: Duration, deltas: Int, sentBytes: Int
  ) {
    state.withLock { state in
      state.streams[StreamKey(route: route, outcome: outcome), default: 0] += 1
      if let firstToken { state.firstToken.add(firstToken.seconds) }
      state.duration.add(total.seconds)
      if let firstToken, deltas > 1 { state.gap.add((total - firstToken).seconds / Double(deltas - 1)) }
      state.deltasPerStream.add(Double(deltas))
      state.deltas += deltas
      state.sentBytes += sentBytes
    }
  }

  /// Counts a stream that has failed.
  func countFailure(_ failure: Failure) { state.withLock { $0.failures[FailureKey(failure), default: 0] += 1 } }

  /// Counts the bytes sent to one reader of a stream.
  func countSentBytes(_ count: Int) { state.withLock { $0.sentBytes += count } }

  /// Counts a further reader of a stream.
  func countResumed() { state.withLock { $0.resumed += 1 } }

  /// Counts a request that was refused before anything was streamed.
  func countRefusal(_ failure: Failure) { state.withLock { $0.refusals[FailureKey(failure), default: 0] += 1 } }

  /// Counts a write to the store, after its retries.
  func countWrite(isStored: Bool) { state.withLock { if isStored { $0.stored += 1 } else { $0.notStored += 1 } } }

  /// Returns all metrics in the Prometheus text format (0.0.4).
  func text(
    openStreams: Int, webSockets: Int, unsaved: Int, redactions: RedactionCounts, commands: CommandSlots,
    _ transcripts: TranscriptRegistry
  ) -> String {
    let state = state.withLock { $0 }
    var text = MetricsText()
    text.add("sluice_build_info", "gauge", "The version.", [("version=\"\(Application.version)\"", 1)])
    text.add("sluice_streams_open", "gauge", "Streams currently open.", [("", Double(openStreams))])
    text.add("sluice_websockets_open", "gauge", "WebSocket connections.", [("", Double(webSockets))])
    text.add(
      "sluice_generations_detached", "gauge", "Running streams without a client.",
      [("", Double(transcripts.detachedGenerations))])
    text.add(
      "sluice_transcript_bytes", "gauge", "Memory of the streams that can be read again.",
      [("", Double(transcripts.retainedBytes))])
    text.add(
      "sluice_resumed_total", "counter", "Streams read again or by a further client.", [("", Double(state.resumed))])
    text.add(
      "sluice_streams_total", "counter", "Ended streams by route and outcome.",
      state.streams.map { ("route=\"\($0.key.route)\",outcome=\"\($0.key.outcome.rawValue)\"", Double($0.value)) })
    text.add(
      "sluice_refusals_total", "counter", "Requests refused before the response started, by error code and cause.",
      state.refusals.map { ($0.key.labels, Double($0.value)) })
    text.add(
      "sluice_stream_failures_total", "counter", "Failed streams by error code and cause.",
      state.failures.map { ($0.key.labels, Double($0.value)) })
    text.add(
      "sluice_unsaved", "gauge", "Turns and reports that wait to be stored, after a failed write.",
      [("", Double(unsaved))])
    text.add(
      "sluice_store_writes_total", "counter", "Store writes by result.",
      [("result=\"ok\"", Double(state.stored)), ("result=\"failed\"", Double(state.notStored))])
    text.add(
      "sluice_upstream_requests_total", "counter", "Requests to model servers, by whether their connection was new.",
      [
        ("connection=\"new\"", Double(upstreamConnections.opened)),
        ("connection=\"reused\"", Double(upstreamConnections.reused)),
      ])
    text.add(
      "sluice_commands", "gauge", "Programs of local models that run, and responses that wait for one.",
      [("state=\"running\"", Double(commands.running)), ("state=\"waiting\"", Double(commands.waiting))])
    text.add(
      "sluice_redactions_total", "counter", "Redactions by the pattern's name.",
      redactions.all.map { ("pattern=\"\(MetricsText.escaped($0.name))\"", Double($0.value)) })
    text.add("sluice_deltas_total", "counter", "Deltas sent.", [("", Double(state.deltas))])
    text.add(
      "sluice_sent_bytes_total", "counter", "Bytes of streams sent to the web server.",
      [("", Double(state.sentBytes))])
    text.add(
      "sluice_first_token_seconds", "Time from the start of a stream to its first delta.", state.firstToken)
    text.add("sluice_delta_gap_seconds", "Mean time between two deltas of a stream.", state.gap)
    text.add("sluice_stream_duration_seconds", "Time from the start of a stream to its end.", state.duration)
    text.add("sluice_stream_deltas", "Deltas per stream.", state.deltasPerStream)
    text.addProcess()
    return text.text
  }
}

/// A Prometheus histogram: the number of values in each bucket.
private struct Histogram {
  let bounds: [Double]
  /// The counts of the buckets, not cumulative. The last bucket is for values beyond all bounds.
  private(set) var counts: [Int]
  private(set) var sum = 0.0

  init(bounds: [Double]) {
    self.bounds = bounds
    counts = Array(repeating: 0, count: bounds.count + 1)
  }

  mutating func add(_ value: Double) {
    counts[bounds.firstIndex { value <= $0 } ?? bounds.count] += 1
    sum += value
  }
}

private struct MetricsText {
  private(set) var text = ""

  mutating func add(_ name: String, _ type: String, _ help: String, _ samples: [(labels: String, value: Double)]) {
    head(name, type, help)
    for sample in samples.sorted(by: { $0.labels < $1.labels }) { line(name, sample.labels, sample.value) }
  }

  mutating func add(_ name: String, _ help: String, _ histogram: Histogram) {
    head(name, "histogram", help)
    var count = 0
    for (index, more) in histogram.counts.enumerated() {
      count += more
      let bound = index < histogram.bounds.count ? Self.number(histogram.bounds[index]) : "+Inf"
      line(name + "_bucket", "le=\"\(bound)\"", Double(count))
    }
    line(name + "_sum", "", histogram.sum)
    line(name + "_count", "", Double(count))
  }

  /// Adds the metrics that every Prometheus client library has under these names.
  mutating func addProcess() {
    let page = Double(sysconf(CInt(_SC_PAGESIZE)))
    // The second number is the resident size in pages (proc_pid_statm(5)).
    if let content = try? readFile("/proc/self/statm"),
      let pages = String(decoding: content, as: UTF8.self).split(separator: " ").dropFirst().first.flatMap({
        Double($0)
      })
    {
      add("process_resident_memory_bytes", "gauge", "Resident memory.", [("", pages * page)])
    }
    if let count = try? fileNames(in: "/proc/self/fd").count {
      add("process_open_fds", "gauge", "Open file descriptors.", [("", Double(count))])
    }
    var limit = rlimit()
    if unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 {
      add("process_max_fds", "gauge", "Maximum number of open file descriptors.", [("", Double(limit.rlim_cur))])
    }
    var time = timespec()
    if unsafe clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time) == 0 {
      add("process_cpu_seconds_total", "counter", "CPU time.", [("", Double(time.tv_sec) + Double(time.tv_nsec) / 1e9)])
    }
  }

  /// Returns a text as the value of a label.
  static func escaped(_ text: String) -> String {
    text.map { character in
      switch character {
      case "\\": "\\\\"
      case "\"": "\\\""
      case _ where character.isNewline: "\\n"
      default: String(character)
      }
    }.joined()
  }

  private mutating func head(_ name: String, _ type: String, _ help: String) {
    text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
  }

  private mutating func line(_ name: String, _ labels: String, _ value: Double) {
    text += name + (labels.isEmpty ? "" : "{\(labels)}") + " " + Self.number(value) + "\n"
  }

  private static func number(_ value: Double) -> String {
    Int(exactly: value).map(String.init) ?? String(value)
  }
}

extension Duration {
  fileprivate var seconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
