import EventLoop
import FoundationEssentials
import Glibc
import JSON

/// One JSON object a line, on standard error. Use it from any thread: a line is handed to a thread of its own, so a
/// full pipe holds nobody up. Never give it a token, a key or what anybody said.
package final class Log: Sendable {
  /// Which lines are written: those of a level and of all above it.
  package enum Level: String, Sendable, CaseIterable { case error, warning, info, debug }

  private struct State: ~Copyable {
    var lines: [UInt8] = []
    var dropped = 0
    var isWriting = false
  }

  private let level: Level
  private let thread = BlockingPool(maximumThreads: 1)
  private let state = Locked(State())
  private let descriptor: CInt
  /// systemd's journal takes a level in front of each line (sd-daemon(3)).
  private let isJournal: Bool

  /// What may wait to be written, in bytes. What comes on top is dropped, and its count logged.
  private static let maximumWaitingBytes = 4 << 20

  init(
    level: Level, descriptor: CInt = STDERR_FILENO,
    environment: [String: String] = [:]
  ) {
    self.level = level
    self.descriptor = descriptor
    self.isJournal = Self.isJournal(descriptor, environment["JOURNAL_STREAM"])
  }

  package func error(_ message: String, _ fields: JSON.Members = [:]) { write(.error, message, fields) }
  package func warning(_ message: String, _ fields: JSON.Members = [:]) { write(.warning, message, fields) }
  package func info(_ message: String, _ fields: JSON.Members = [:]) { write(.info, message, fields) }
  package func debug(_ message: String, _ fields: JSON.Members = [:]) { write(.debug, message, fields) }

  func write(_ level: Level, _ message: String, _ fields: JSON.Members) {
    guard level.priority <= self.level.priority else { return }
    var object: JSON.Members = [
      "time": .string(Timestamp.now), "level": .string(level.rawValue), "message": .string(message),
    ]
    for field in fields.all { object[field.name] = field.value }
    var line: [UInt8] = isJournal ? Array("<\(level.priority)>".utf8) : []
    line.append(json: .object(object))
    line.append(0x0A)
    let mustWrite = state.withLock { state in
      guard state.lines.count + line.count <= Self.maximumWaitingBytes else {
        state.dropped += 1
        return false
      }
      state.lines.append(contentsOf: line)
      return !exchange(&state.isWriting, with: true)
    }
    if mustWrite { thread.submit { self.drain() } }
  }

  /// Writes what waits, on the calling thread: before the program ends. What nobody reads is given up after a second.
  package func flush() {
    let end = ContinuousClock.now + .seconds(1)
    // The log's thread, if it is writing, has taken its lines already and needs a moment for them.
    while state.withLock({ $0.isWriting }) {
      guard ContinuousClock.now < end else { return }
      usleep(1000)
    }
    drain(until: end)
  }

  private func drain(until end: ContinuousClock.Instant? = nil) {
    while true {
      let lines: [UInt8]? = state.withLock { state in
        if state.dropped > 0 {
          state.lines += Array(
            #"{"level":"warning","message":"log lines were dropped","lines":\#(state.dropped)}"#.utf8)
          state.lines.append(0x0A)
          state.dropped = 0
        }
        guard !state.lines.isEmpty else {
          state.isWriting = false
          return nil
        }
        return exchange(&state.lines, with: [])
      }
      guard let lines else { return }
      var sent = 0
      while sent < lines.count {
        guard isWritable(until: end) else { return }
        // No more than a pipe takes without blocking when it polls writable (PIPE_BUF, pipe(7)).
        let part = lines[sent...].prefix(4096)
        let count = unsafe part.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        // Nobody reads the log any more: that is no reason to stop serving.
        guard count > 0 else { break }
        sent += count
      }
    }
  }

  /// Waits until the descriptor takes something. False when `end` comes before.
  private func isWritable(until end: ContinuousClock.Instant?) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    while true {
      let timeout = end.map { CInt(clamping: max(0, ($0 - .now).roundedUpMilliseconds)) } ?? -1
      let count = unsafe poll(&request, 1, timeout)
      if count < 0, errno == EINTR { continue }
      return count != 0
    }
  }

  private static func isJournal(_ descriptor: CInt, _ stream: String?) -> Bool {
    var status = stat()
    guard let stream, unsafe fstat(descriptor, &status) == 0 else { return false }
    return stream == "\(status.st_dev):\(status.st_ino)"
  }
}

extension Failure.Code {
  /// What is the server's own fault is an error; the rest happens every day.
  var logLevel: Log.Level {
    switch self {
    case .internalError, .storeFailed: .error
    default: .info
    }
  }
}

extension Log.Level {
  /// The level of syslog(3).
  fileprivate var priority: Int {
    switch self {
    case .error: 3
    case .warning: 4
    case .info: 6
    case .debug: 7
    }
  }
}
