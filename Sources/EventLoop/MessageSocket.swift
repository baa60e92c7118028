import CLinux
import Glibc

/// One end of a connection between two processes that carries messages and open descriptors (AF_UNIX, SOCK_SEQPACKET;
/// unix(7)). Owns its descriptor. Belongs to its loop once it is watched.
package final class MessageSocket {
  /// One message.
  package struct Message {
    package let text: String
    /// The descriptors that came with it, which the receiver owns.
    package let files: [CInt]
  }

  private let descriptor: Descriptor
  private var watch: Watch?

  private static let maximumBytes = 4096

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
  /// - Throws: `EPIPE` if the other end is closed, `EAGAIN` if it does not read.
  package func send(_ text: String, files: [CInt] = []) throws(SystemError) {
    let bytes = Array(text.utf8)
    guard unsafe clinux_send_message(descriptor.number, bytes, bytes.count, files, CInt(files.count)) == 0 else {
      throw SystemError("send to the other process")
    }
  }

  /// Returns the next message; nil if the other end is closed. Waits for it, unless the socket is watched.
  package func receive() throws(SystemError) -> Message? {
    var bytes = [UInt8](repeating: 0, count: Self.maximumBytes)
    var files = [CInt](repeating: -1, count: Int(CLINUX_MESSAGE_FILES))
    var fileCount: CInt = 0
    let count = unsafe clinux_receive_message(descriptor.number, &bytes, bytes.count, &files, &fileCount)
    guard count >= 0 else { throw SystemError("receive from the other process") }
    if count == 0 { return nil }
    return Message(
      text: String(decoding: bytes.prefix(count), as: UTF8.self), files: Array(files.prefix(Int(fileCount))))
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
