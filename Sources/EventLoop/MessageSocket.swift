import CLinux
import Glibc

/// One end of a connection between two processes that carries messages and open descriptors (AF_UNIX, SOCK_SEQPACKET;
/// unix(7)). Owns its descriptor. Belongs to its loop once it is watched.
package final class MessageSocket {
  /// One message.
  package struct Message {
    package let text: String
    /// Bytes that follow the text.
    package let payload: [UInt8]
    /// The descriptors that came with it, which the receiver owns.
    package let files: [CInt]
  }

  private let descriptor: Descriptor
  private var watch: Watch?

  /// The maximum size of a message, less than the default size of a socket's send buffer.
  private static let maximumBytes = 128 * 1024

  package init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  /// Returns the two ends of a new connection.
  package static func pair() throws(SystemError) -> (MessageSocket, MessageSocket) {
    var ends: [CInt] = [0, 0]
    guard unsafe socketpair(AF_UNIX, CInt(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
      throw SystemError("create a pair of sockets")
    }
    return (MessageSocket(Descriptor(owning: ends[0])), MessageSocket(Descriptor(owning: ends[1])))
  }

  /// Sends a message and up to eight descriptors, which stay open here. Never waits.
  ///
  /// - Parameters:
  ///   - text: without a line end.
  ///   - payload: bytes that follow the text.
  /// - Throws: `EPIPE` if the other end is closed, `EAGAIN` if it does not read, `EMSGSIZE` if the message is too large.
  package func send(_ text: String, payload: [UInt8] = [], files: [CInt] = []) throws(SystemError) {
    let bytes = Array(text.utf8) + (payload.isEmpty ? [] : [0x0A] + payload)
    guard bytes.count <= Self.maximumBytes else { throw SystemError("send to the other process", code: EMSGSIZE) }
    guard unsafe clinux_send_message(descriptor.number, bytes, bytes.count, files, CInt(files.count)) == 0 else {
      throw SystemError("send to the other process")
    }
  }

  /// Sends messages on any thread.
  package struct Sender: @unchecked Sendable {
    // Safe: sending only reads the number of the descriptor, which this reference keeps open.
    fileprivate let socket: MessageSocket

    /// Sends a message; see ``MessageSocket/send(_:payload:files:)``. Returns whether it is sent.
    package func send(_ text: String, payload: [UInt8] = [], files: [CInt] = []) -> Bool {
      (try? socket.send(text, payload: payload, files: files)) != nil
    }
  }

  package var sender: Sender { Sender(socket: self) }

  /// Returns the next message; nil if the other end is closed. Waits for it, unless the socket is watched.
  package func receive() throws(SystemError) -> Message? {
    var bytes = [UInt8](repeating: 0, count: Self.maximumBytes)
    var files = [CInt](repeating: -1, count: Int(CLINUX_MESSAGE_FILES))
    var fileCount: CInt = 0
    let count = unsafe clinux_receive_message(descriptor.number, &bytes, bytes.count, &files, &fileCount)
    guard count >= 0 else { throw SystemError("receive from the other process") }
    if count == 0 { return nil }
    let parts = bytes.prefix(count).split(separator: 0x0A, maxSplits: 1, omittingEmptySubsequences: false)
    return Message(
      text: String(decoding: parts[0], as: UTF8.self), payload: parts.count > 1 ? Array(parts[1]) : [],
      files: Array(files.prefix(Int(fileCount))))
  }

  /// Calls `handler` on the loop for each message, and last with nil when the other end is closed.
  package func receive(on reactor: Reactor, _ handler: @escaping (Message?) -> Void) throws(SystemError) {
    _ = fcntl(descriptor.number, F_SETFL, fcntl(descriptor.number, F_GETFL) | O_NONBLOCK)
    watch = try reactor.watch(descriptor.number, for: .readable) { [unowned self] _ in
      let message: Message?
      do throws(SystemError) { message = try receive() } catch {
        if error.code == EAGAIN { return }
        message = nil
      }
      if message == nil { watch?.cancel() }
      handler(message)
    }
  }

  /// Starts the program of this process again, with `arguments` (the first is its name) and `environment`, and this
  /// socket as descriptor 3. It is no child of this process, so it survives its end without a change of parent.
  ///
  /// - Returns: its process id.
  package func startProgram(
    _ path: String, arguments: [String], environment: [String: String]
  ) throws(SystemError) -> pid_t {
    let argv = unsafe arguments.map { unsafe strdup($0) } + [nil]
    let envp = unsafe environment.map { unsafe strdup("\($0.key)=\($0.value)") } + [nil]
    defer {
      for index in unsafe argv.indices { unsafe free(argv[index]) }
      for index in unsafe envp.indices { unsafe free(envp[index]) }
    }
    let pid = unsafe clinux_spawn_detached(path, argv, envp, descriptor.number)
    guard pid > 0 else { throw SystemError("start \(path)") }
    return pid
  }

  deinit { watch?.cancel() }
}
