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

  /// Returns whether ``write(_:)`` of `bytes`, at most ``maximumWriteBytes``, would not block now.
  func isWritable(_ bytes: Int) -> Bool

  /// Waits until ``maximumWriteBytes`` can be written or the peer closes the connection, for at most `limit`.
  func waitUntilWritable(for limit: Duration) async

  /// Sends up to ``maximumWriteBytes``. Call it only if ``isWritable(_:)`` is true for them.
  func write(_ bytes: borrowing Span<UInt8>) throws(WriteError)

  /// Completes the response, all of which has been written.
  func finish()

  /// Terminates the response so that the client receives a broken response, not a complete one.
  func abort()
}

/// The reason why a response could not be written.
package enum WriteError: Error, Sendable, Equatable {
  /// The client or the web server has closed the connection.
  case peerClosed
  /// The peer read nothing within the write timeout.
  case timedOut
}
