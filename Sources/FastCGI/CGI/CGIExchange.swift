import EventLoop
import Glibc

/// The CGI counterpart of a FastCGI connection (RFC 3875): one request of a web server that starts one process per
/// request. Variables come from the environment, the body from standard input; the response goes to standard output.
package final class CGIExchange: ResponseTransport {
  private let reactor: Reactor
  private var gate = OutputGate(STDOUT_FILENO, budget: 0)
  private let writable = Waiter()
  private let onEnd: () -> Void
  private var watch: Watch?
  package private(set) var isPeerClosed = false
  package var onPeerClosed: (() -> Void)?

  /// Whether this process was started as a CGI program (RFC 3875, 4.1.4 and 4.1.12). fcgiwrap passes on only what the web
  /// server names, which is often no GATEWAY_INTERFACE.
  package static func isStarted(in environment: [String: String]) -> Bool {
    environment["GATEWAY_INTERFACE"] != nil || environment["REQUEST_METHOD"] != nil
  }

  /// - Parameter onEnd: called when the response is finished or aborted.
  package init(on reactor: Reactor, onEnd: @escaping () -> Void) {
    self.reactor = reactor
    self.onEnd = onEnd
    // Closing the read end of a pipe raises an error event on the write end. A regular file cannot be watched and has
    // no peer that could close it.
    watch = try? reactor.watch(STDOUT_FILENO, for: .edgeTriggered) { [unowned self] in handleReadiness($0) }
  }

  /// Reads the request of this process. Blocks until the web server has sent the complete body.
  ///
  /// - Returns: the request. Of a body over `maximumBodyBytes`, all is read and nothing kept, because many web servers
  ///   read no response before they have passed on the body; see ``Request/bodyIssue``.
  package static func readRequest(environment: [String: String], maximumBodyBytes: Int) -> Request {
    var parameters = Parameters()
    for (name, value) in environment { parameters[name] = value }
    var request = Request(parameters: parameters)
    // Without a length there is no body (RFC 3875, 4.2), except a chunked one, which the web server has decoded.
    let isChunked = parameters["HTTP_TRANSFER_ENCODING"] != nil || parameters["CONTENT_LENGTH"] == "-1"
    let length = request.announcedBodyBytes ?? (isChunked ? .max : 0)
    var received: [UInt8] = []
    var total = 0
    var buffer = [UInt8](repeating: 0, count: length > 0 ? 64 * 1024 : 0)
    while total < length {
      let count = unsafe Glibc.read(STDIN_FILENO, &buffer, min(buffer.count, length - total))
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      total += count
      received.append(contentsOf: buffer.prefix(min(count, maximumBodyBytes + 1 - received.count)))
    }
    request.setBody(received, limit: maximumBodyBytes)
    return request
  }

  private func handleReadiness(_ ready: Readiness) {
    if ready.contains(anyOf: .error | .hangup), !isPeerClosed {
      isPeerClosed = true
      onPeerClosed.take()?()
    }
    writable.wake()
  }

  /// The number of bytes that a pipe accepts without blocking once it polls writable (PIPE_BUF, pipe(7)).
  package var maximumWriteBytes: Int { 4096 }

  package func isWritable(_ bytes: Int) -> Bool { gate.permits(bytes) }

  package func waitUntilWritable(for limit: Duration) async {
    try? watch?.change(to: .writable | .edgeTriggered)
    await reactor.wait(on: writable, for: limit) { !isPeerClosed && !isWritable(maximumWriteBytes) }
    try? watch?.change(to: .edgeTriggered)
  }

  package func write(_ bytes: borrowing Span<UInt8>) throws(WriteError) -> Bool {
    if isPeerClosed { throw .peerClosed }
    guard gate.permits(bytes.count) else { return false }
    var sent = 0
    while sent < bytes.count {
      let count = unsafe bytes.extracting(sent..<bytes.count).withUnsafeBytes { bytes in
        unsafe Glibc.write(STDOUT_FILENO, bytes.baseAddress, bytes.count)
      }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw .peerClosed }
      sent += count
    }
    gate.deduct(bytes.count)
    return true
  }

  package func finish(_ bytes: borrowing Span<UInt8>) throws(WriteError) {
    defer { end() }
    if bytes.count > 0, try !write(bytes) { throw .peerClosed }
  }

  /// Ends the exchange like ``finish(_:)``: CGI has no other way to mark a response as aborted.
  package func abort() { end() }

  /// Closes standard output, with which the response ends, before the process does.
  package static func closeOutput() {
    // The number stays in use, so that no other file gets it.
    let null = unsafe open("/dev/null", O_WRONLY | O_CLOEXEC)
    guard null >= 0 else { return }
    dup2(null, STDOUT_FILENO)
    close(null)
  }

  private func end() {
    guard let watch = watch.take() else { return onEnd() }
    watch.cancel()
    onPeerClosed = nil
    onEnd()
  }
}
