import EventLoop
import Glibc

/// The process that this one takes over from, which still finishes its streams. Belongs to the main loop.
final class Predecessor {
  private let socket: MessageSocket
  private var nextNumber = 0
  private var replies: [Int: (Bool) -> Void] = [:]
  private(set) var isRunning = true

  private init(_ socket: MessageSocket) { self.socket = socket }

  /// Returns the process that has started this one as its successor; nil if none has.
  static func inherited() -> Predecessor? {
    guard let text = unsafe getenv(Successor.variable), let number = CInt(unsafe String(cString: text)), number >= 0
    else {
      return nil
    }
    // A program that this process starts is no successor.
    unsafe unsetenv(Successor.variable)
    _ = fcntl(number, F_SETFD, FD_CLOEXEC)
    return Predecessor(MessageSocket(Descriptor(owning: number)))
  }

  /// Returns the listening sockets that it passes.
  func sockets() throws(StartError) -> [ListeningSocket] {
    let message: MessageSocket.Message?
    do throws(SystemError) { message = try socket.receive() } catch {
      throw StartError(message: "cannot take over: \(error)")
    }
    let kinds = message?.text.words(after: "sockets")?.first ?? ""
    guard let message, !kinds.isEmpty, kinds.count == message.files.count else {
      throw StartError(message: "cannot take over: the earlier process passed no sockets")
    }
    return zip(message.files, kinds).map { number, kind in
      ListeningSocket(number: number, kind: ListeningSocket.Kind(rawValue: String(kind)) ?? .fastCGI)
    }
  }

  /// Reports that this process serves.
  ///
  /// - Parameters:
  ///   - onServing: called when it is the only one.
  ///   - onConnection: called with each connection that the earlier process passes on, which the receiver owns, and the
  ///     bytes that it has read from it.
  ///   - onEnd: called when the earlier process has ended; `onServing` has been called, unless that process failed.
  func takeOver(
    on reactor: Reactor, onServing: @escaping () -> Void, onConnection: @escaping (CInt, [UInt8]) -> Void,
    onEnd: @escaping () -> Void
  ) throws(SystemError) {
    try socket.receive(
      on: reactor, onConnection: onConnection,
      onMessage: { [unowned self] message in
        guard let message else {
          isRunning = false
          for reply in exchange(&replies, with: [:]).values { reply(false) }
          return onEnd()
        }
        if message == "serving" { return onServing() }
        let words = message.words(after: "reply") ?? []
        if words.count == 2, let number = Int(words[0]) { replies.removeValue(forKey: number)?(words[1] == "1") }
      })
    try socket.send("ready")
  }

  /// Asks for something that can be done there only.
  ///
  /// - Parameters:
  ///   - request: the name of the request.
  ///   - reply: called with whether it was done; with false if that process has ended.
  func ask(_ request: String, _ object: String, user: String, _ reply: @escaping (Bool) -> Void) {
    guard isRunning else { return reply(false) }
    nextNumber += 1
    replies[nextNumber] = reply
    do throws(SystemError) { try socket.send("\(request) \(nextNumber) \(object) \(user)") } catch {
      replies.removeValue(forKey: nextNumber)?(false)
    }
  }

  func send(_ message: String) { try? socket.send(message) }

  /// Passes a connection, and the bytes of its request, on any thread. Returns whether that was possible.
  var pass: @Sendable (CInt, [UInt8]) -> Bool { socket.passConnection }
}
