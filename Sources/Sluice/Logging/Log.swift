import EventLoop
import FoundationEssentials
import Glibc
import JSON
import Synchronization

/// A log with one JSON object per line, on standard error. If that is systemd's journal, each field of the object is one
/// of the journal's too. Thread-safe: a dedicated thread writes the lines, so a full pipe blocks no caller. Never log a
/// token, a key, or the content of messages.
package final class Log: Sendable {
  /// The severity of a line. A log writes the lines of its own level and of all more severe ones.
  package enum Level: String, Sendable, CaseIterable { case error, warning, info, debug }

  private struct State: ~Copyable {
    var lines: [UInt8] = []
    /// The entries for the journal.
    var entries: [JournalEntry] = []
    /// The number of bytes in ``lines`` and ``entries``.
    var waitingBytes = 0
    var limiter = LogLimiter()
    var dropped = 0
    var isWriting = false
  }

  /// The priority of the least severe level that is written.
  private let priority: Atomic<Int>
  private let thread = BlockingPool(maximumThreads: 1)
  private let state = Locked(State())
  private let descriptor: CInt
  /// Whether the descriptor is systemd's journal.
  private let isJournal: Bool

  /// The maximum number of bytes that wait to be written. Lines beyond that are dropped, and their number is logged.
  private static let maximumWaitingBytes = 4 << 20

  init(
    level: Level, descriptor: CInt = STDERR_FILENO,
    environment: [String: String] = [:]
  ) {
    priority = Atomic(level.priority)
    self.descriptor = descriptor
    self.isJournal = JournalEntry.isJournal(descriptor, environment["JOURNAL_STREAM"])
  }

  package func error(_ message: String, _ fields: JSON.Members = [:]) { write(.error, message, fields) }
  package func warning(_ message: String, _ fields: JSON.Members = [:]) { write(.warning, message, fields) }
  package func info(_ message: String, _ fields: JSON.Members = [:]) { write(.info, message, fields) }
  package func debug(_ message: String, _ fields: JSON.Members = [:]) { write(.debug, message, fields) }

  /// Whether lines of `level` are written. Check it before creating fields for every request.
  func writes(_ level: Level) -> Bool { level.priority <= priority.load(ordering: .relaxed) }

  func setLevel(_ level: Level) { priority.store(level.priority, ordering: .relaxed) }

  func write(_ level: Level, _ message: String, _ fields: JSON.Members) {
    guard writes(level) else { return }
    let isWanted = state.withLock { $0.limiter.admits(level, message, fields, at: .now) }
    if isWanted { enqueue(level, message, fields) }
  }

  /// Writes how many lines were left out in each flood that is over. Called every second.
  func reportSuppressed() {
    report(state.withLock { $0.limiter.takeFinished(at: .now) })
  }

  private func report(_ floods: [LogLimiter.Flood]) {
    for flood in floods { enqueue(flood.level, "log lines suppressed", flood.fields) }
  }

  private func enqueue(_ level: Level, _ message: String, _ fields: JSON.Members) {
    var object: JSON.Members = [
      "time": .string(Timestamp.now), "level": .string(level.rawValue), "message": .string(message),
    ]
    for field in fields.all { object[field.name] = field.value }
    var line: [UInt8] = []
    line.append(json: .object(object))
    if !isJournal { line.append(0x0A) }
    let shouldStartWriting = state.withLock { state in
      guard state.waitingBytes + line.count <= Self.maximumWaitingBytes else {
        state.dropped += 1
        return false
      }
      state.waitingBytes += line.count
      if isJournal {
        state.entries.append(JournalEntry(line, level, fields))
      } else {
        state.lines.append(contentsOf: line)
      }
      return !exchange(&state.isWriting, with: true)
    }
    if shouldStartWriting { thread.submit { self.drain() } }
  }

  /// Writes the waiting lines on the calling thread, before the program exits. Gives up after one second if they are
  /// not read.
  package func flush() {
    report(state.withLock { $0.limiter.takeAll() })
    let end = ContinuousClock.now + .seconds(1)
    // If the log's thread is writing, it has already taken its lines and needs time to write them.
    while state.withLock({ $0.isWriting }) {
      guard ContinuousClock.now < end else { return }
      usleep(1000)
    }
    drain(until: end)
  }

  private func drain(until end: ContinuousClock.Instant? = nil) {
    while true {
      let waiting: (lines: [UInt8], entries: [JournalEntry])? = state.withLock { state in
        if state.dropped > 0 {
          let line = Array(#"{"level":"warning","message":"log lines were dropped","lines":\#(state.dropped)}"#.utf8)
          if isJournal {
            state.entries.append(JournalEntry(line, .warning, [:]))
          } else {
            state.lines += line + [0x0A]
          }
          state.dropped = 0
        }
        guard !state.lines.isEmpty || !state.entries.isEmpty else {
          state.isWriting = false
          return nil
        }
        state.waitingBytes = 0
        return (exchange(&state.lines, with: []), exchange(&state.entries, with: []))
      }
      guard let (lines, entries) = waiting else { return }
      for entry in entries { entry.send() }
      var sent = 0
      while sent < lines.count {
        guard isWritable(until: end) else { return }
        // A pipe that polls as writable takes up to PIPE_BUF bytes, 4096 on Linux, without blocking (pipe(7)).
        let part = lines[sent...].prefix(4096)
        let count = unsafe part.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        // The write failed, for example because the reader has closed the pipe. The server continues without these
        // lines.
        guard count > 0 else { break }
        sent += count
      }
    }
  }

  /// Waits until the descriptor is writable. Returns false if `end` is reached first.
  private func isWritable(until end: ContinuousClock.Instant?) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    while true {
      let timeout = end.map { CInt(clamping: max(0, ($0 - .now).roundedUpMilliseconds)) } ?? -1
      let count = unsafe poll(&request, 1, timeout)
      if count < 0, errno == EINTR { continue }
      return count != 0
    }
  }
}

extension Failure.Code {
  /// The level at which the failure is logged: `error` for failures of the server itself, `warning` for those of the
  /// model server and a lack of capacity, `info` for what clients cause.
  var logLevel: Log.Level {
    switch self {
    case .internalError, .storeFailed: .error
    case .upstreamError, .upstreamTruncated, .upstreamTimeout, .upstreamRateLimited, .overloaded: .warning
    default: .info
    }
  }
}

extension Log.Level {
  /// The level's number in syslog(3).
  var priority: Int {
    switch self {
    case .error: 3
    case .warning: 4
    case .info: 6
    case .debug: 7
    }
  }
}

extension ConfigurationError.Issue {
  var fields: JSON.Members {
    ["variable": .string(variable), "reason": .string(reason), "origin": origin.map(JSON.string) ?? .null]
  }
}
