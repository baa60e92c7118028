import EventLoop

/// The way out of one request: FastCGI records, a CGI program's standard output, or a test's memory.
///
/// Belongs to its loop. Nothing here may block it.
package protocol ResponseTransport: AnyObject {
  /// The most bytes that one ``write(_:)`` takes.
  var maximumWriteBytes: Int { get }

  /// Whether the peer has gone. Nothing that is written reaches anyone then.
  var isPeerClosed: Bool { get }

  /// Called once, when the peer goes before the answer is finished.
  var onPeerClosed: (() -> Void)? { get set }

  /// Whether ``write(_:)`` of `bytes`, at most a piece, would not block now.
  func isWritable(_ bytes: Int) -> Bool

  /// Waits until a whole piece can be written, until the peer has gone, or for `limit`.
  func waitUntilWritable(for limit: Duration) async

  /// Sends up to ``maximumWriteBytes`` at once, not to be called unless ``isWritable(_:)``.
  func write(_ bytes: borrowing Span<UInt8>) throws(WriteError)

  /// Ends the answer: all of it has been written.
  func finish()

  /// Ends it so that the web server shows its client a broken answer, not a complete one.
  func abort()
}

/// Why an answer could not be written.
package enum WriteError: Error, Sendable, Equatable {
  /// The client, or the web server, has closed the connection.
  case peerClosed
  /// The peer took nothing for the length of the write timeout.
  case timedOut
}
