import EventLoop

/// The output side of one request: FastCGI records, a CGI program's standard output, or a test's memory.
///
/// Belongs to its loop, which its methods must not block.
package protocol ResponseTransport: AnyObject {
  /// The maximum number of bytes per ``write(_:)``.
  var maximumWriteBytes: Int { get }

  /// Whether the peer has closed the connection. Written bytes are lost in that case.
  var isPeerClosed: Bool { get }

  /// Called once if the peer closes the connection before the response is finished.
  var onPeerClosed: (() -> Void)? { get set }

  /// Returns whether a ``write(_:)`` of `bytes`, at most ``maximumWriteBytes``, is possible without waiting.
  func isWritable(_ bytes: Int) -> Bool

  /// Waits until ``maximumWriteBytes`` can be written or the peer closes the connection, for at most `limit`.
  func waitUntilWritable(for limit: Duration) async

  /// Sends up to ``maximumWriteBytes``, if that is possible without waiting.
  ///
  /// - Returns: false if the peer cannot accept the bytes now. None of them have been sent in that case.
  func write(_ bytes: borrowing Span<UInt8>) throws(WriteError) -> Bool

  /// Completes the response with its last bytes, at most ``maximumWriteBytes`` less
  /// ``endMarkerBytes``. Call it only if ``isWritable(_:)`` is
  /// true for them and the end markers.
  ///
  /// - Throws: ``WriteError/peerClosed`` if there are last bytes and the peer has not accepted them. The transport is
  ///   closed then.
  func finish(_ bytes: borrowing Span<UInt8>) throws(WriteError)

  /// Passes the connection to another process, which then responds to the request. Call it before anything is written.
  ///
  /// - Parameters:
  ///   - request: the request, with the body that was received.
  ///   - pass: passes a socket and the bytes of a request, and returns whether that was possible.
  /// - Returns: whether the connection is passed. It is closed here then; otherwise, nothing has changed.
  func handOver(_ request: Request, _ pass: (CInt, [UInt8]) -> Bool) -> Bool

  /// Terminates the response so that the client receives a broken response, not a complete one.
  func abort()
}

extension ResponseTransport {
  package func handOver(_ request: Request, _ pass: (CInt, [UInt8]) -> Bool) -> Bool { false }

  /// The size of FastCGI's end markers: the end of STDOUT, and END_REQUEST.
  var endMarkerBytes: Int { 24 }
}

/// The reason why a response could not be written.
package enum WriteError: Error, Sendable, Equatable {
  /// The client or the web server has closed the connection.
  case peerClosed
  /// The peer read nothing within the write timeout.
  case timedOut
}
