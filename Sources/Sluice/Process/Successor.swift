import EventLoop
import FoundationEssentials
import Glibc

/// A new process of this program, which takes over the listening sockets while this one finishes its streams. Belongs
/// to the main loop.
///
/// The two processes exchange messages over a socket: `sockets KINDS` with the descriptors, `ready`, `serving`; later
/// `stop N STREAM USER` and `stop-session N SESSION USER`, answered by `reply N 1` or `reply N 0`; and `drain`,
/// `terminate`. In both directions, `connection` passes a connection, with the bytes that were read from it.
final class Successor {
  private let socket: MessageSocket
  private var deadline: Timer?
  private var isReady = false
  /// The process id.
  let pid: pid_t

  /// The variable that tells a process that it takes over, and from which descriptor.
  static let variable = "_SLUICE_HANDOVER"

  /// The maximum time until the new process is ready.
  private static let readinessTimeout: Duration = .seconds(30)

  /// An event in the life of a successor, or a request of it.
  enum Event {
    /// It accepts connections.
    case ready
    /// It has ended, or was ended, before it was ready.
    case failed(String)
    /// It asks for something, after it was ready.
    case message(String)
    /// It passes on a connection, which the receiver owns, and the bytes that it has read from it.
    case connection(CInt, [UInt8])
    /// It has ended, after it was ready.
    case ended
  }

  /// Starts the program again from its path, with the environment of this process.
  init(
    passing sockets: [ListeningSocket], on reactor: Reactor, _ handler: @escaping (Event) -> Void
  ) throws(SystemError) {
    let (own, passed) = try MessageSocket.pair()
    socket = own
    try own.send("sockets " + sockets.map(\.kind.rawValue).joined(), files: sockets.map(\.number))
    var environment = ProcessInfo.processInfo.environment
    // systemd's variables name the process that they are for (sd_listen_fds(3), sd_watchdog_enabled(3)).
    for name in ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] { environment[name] = nil }
    environment[Self.variable] = "3"
    pid = try passed.startProgram(try Self.program(), arguments: CommandLine.arguments, environment: environment)
    try own.receive(
      on: reactor, onConnection: { handler(.connection($0, $1)) },
      onMessage: { [unowned self] message in
        guard let message else {
          return handler(isReady ? .ended : .failed("it ended before it was ready; see its messages"))
        }
        guard message == "ready" else { return handler(.message(message)) }
        isReady = true
        deadline?.cancel()
        handler(.ready)
      })
    deadline = reactor.schedule(after: Self.readinessTimeout) { [pid] in
      kill(pid, SIGKILL)
      handler(.failed("it was not ready in \(Self.readinessTimeout)"))
    }
  }

  func send(_ message: String) { try? socket.send(message) }

  /// Passes a connection, and the bytes that were read from it, on any thread. Returns whether that was possible.
  var pass: @Sendable (CInt, [UInt8]) -> Bool { socket.passConnection }

  deinit { deadline?.cancel() }

  /// The path of the program, which can have been replaced since it was started.
  private static func program() throws(SystemError) -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = unsafe readlink("/proc/self/exe", &buffer, buffer.count - 1)
    guard count > 0 else { throw SystemError("find the program") }
    let path = String(decoding: buffer.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // The name of a file that was replaced.
    let suffix = " (deleted)"
    return path.hasSuffix(suffix) ? String(path.dropLast(suffix.count)) : path
  }
}

extension MessageSocket {
  /// Passes a connection, and the bytes that were read from it, to the other process, on any thread. Returns whether
  /// that was possible.
  var passConnection: @Sendable (CInt, [UInt8]) -> Bool {
    let sender = sender
    return { sender.send("connection", payload: $1, files: [$0]) }
  }

  /// Receives on the loop.
  ///
  /// - Parameters:
  ///   - onConnection: called with each connection that the other process passes on, which the receiver owns, and the
  ///     bytes that it has read from it.
  ///   - onMessage: called with each other message, and last with nil when the other end is closed.
  func receive(
    on reactor: Reactor, onConnection: @escaping (CInt, [UInt8]) -> Void, onMessage: @escaping (String?) -> Void
  ) throws(SystemError) {
    try receive(on: reactor) { message in
      guard let message else { return onMessage(nil) }
      if message.text == "connection", message.files.count == 1 {
        return onConnection(message.files[0], message.payload)
      }
      for file in message.files { close(file) }
      onMessage(message.text)
    }
  }
}

extension String {
  /// Returns the words after the first one, if that is `name`.
  func words(after name: String) -> [Substring]? {
    let words = split(separator: " ")
    return words.first == name[...] ? Array(words.dropFirst()) : nil
  }
}
