import EventLoop
import Glibc

/// One request of a web server that starts a program for each (RFC 3875): variables in the environment, the body on
/// standard input, the answer on standard output. The twin of a FastCGI connection.
package final class CGIExchange: ResponseTransport {
  private let reactor: Reactor
  private let gate = OutputGate(STDOUT_FILENO, budget: 0)
  private let writable = Waiter()
  private let onEnd: () -> Void
  private var watch: Watch?
  package private(set) var isPeerClosed = false
  package var onPeerClosed: (() -> Void)?

  /// Whether this process was started as a CGI program (RFC 3875, 4.1.4).
  package static func isStarted(in environment: [String: String]) -> Bool { environment["GATEWAY_INTERFACE"] != nil }

  /// - Parameter onEnd: called when the answer is over.
  package init(on reactor: Reactor, onEnd: @escaping () -> Void) {
    self.reactor = reactor
    self.onEnd = onEnd
    // The reading end of a pipe that goes shows as an error on the writing end. A regular file cannot be watched,
    // and has nobody who could go.
    watch = try? reactor.watch(STDOUT_FILENO, for: .edgeTriggered) { [unowned self] in handleReadiness($0) }
  }

  /// Reads the request of this process. Blocks until the web server has sent all of it.
  ///
  /// - Returns: nil when standard input ends before `CONTENT_LENGTH` bytes.
  package static func readRequest(environment: [String: String], maximumBodyBytes: Int) -> Request? {
    var parameters = Parameters()
    for (name, value) in environment { parameters[name] = value }
    var request = Request(parameters: parameters)
    let length = parameters["CONTENT_LENGTH"].flatMap(Int.init) ?? 0
    guard length <= maximumBodyBytes else {
      request.isBodyTooLarge = true
      return request
    }
    var buffer = [UInt8](repeating: 0, count: 8192)
    while request.body.count < length {
      let count = unsafe Glibc.read(STDIN_FILENO, &buffer, min(buffer.count, length - request.body.count))
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return nil }
      request.body.append(contentsOf: buffer.prefix(count))
    }
    return request
  }

  private func handleReadiness(_ ready: Readiness) {
    if ready.contains(anyOf: .error | .hangup), !isPeerClosed {
      isPeerClosed = true
      onPeerClosed.take()?()
    }
    writable.wake()
  }

  /// What a pipe that polls writable takes without blocking (PIPE_BUF, pipe(7)).
  package var maximumWriteBytes: Int { 4096 }

  package func isWritable(_ bytes: Int) -> Bool { gate.permits(bytes) }

  package func waitUntilWritable(for limit: Duration) async {
    try? watch?.change(to: .writable | .edgeTriggered)
    await reactor.wait(on: writable, for: limit) { !isPeerClosed && !gate.permits(maximumWriteBytes) }
    try? watch?.change(to: .edgeTriggered)
  }

  package func write(_ bytes: borrowing Span<UInt8>) throws(WriteError) {
    var sent = 0
    while sent < bytes.count {
      let count = unsafe bytes.extracting(sent..<bytes.count).withUnsafeBytes { bytes in
        unsafe Glibc.write(STDOUT_FILENO, bytes.baseAddress, bytes.count)
      }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw .peerClosed }
      sent += count
    }
    gate.wrote(bytes.count)
  }

  package func finish() { end() }

  /// A CGI program has no way to break its answer off but its end.
  package func abort() { end() }

  private func end() {
    guard let watch = watch.take() else { return onEnd() }
    watch.cancel()
    onPeerClosed = nil
    onEnd()
  }
}
