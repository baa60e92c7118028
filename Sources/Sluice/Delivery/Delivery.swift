import EventLoop
import FastCGI
import Upstream

/// The observer of a delivery's reader, called on the loop.
protocol DeliveryDelegate: AnyObject {
  /// Called when the reader has disconnected or can no longer be written to.
  func deliveryDidDisconnect()

  /// Called when a scheduled flush could not send all of its output; ``Delivery/flush()`` must be called then.
  func deliveryDidBlock()
}

/// The response to one reader of a generation, independent of what produces the deltas.
///
/// Belongs to its loop. No method blocks; the methods that wait for a slow reader are `async`.
protocol Delivery: AnyObject {
  /// Whether ``close(_:text:)`` needs the complete text.
  var needsText: Bool { get }

  /// The number of bytes sent to the web server.
  var sentBytes: Int { get }

  /// The time at which deltas were last sent or, in a format that sends them all at the end, last appended.
  var lastSentAt: LoopClock.Instant { get }

  /// Whether a ``flush()`` is waiting for the reader.
  var isWaitingForReader: Bool { get }

  /// Whether the reader had already disconnected when the delivery was created, before it had a ``delegate``.
  var isReaderDisconnected: Bool { get }

  /// The observer of the reader. Unowned, because a weak reference would make every retain of its object slow. The
  /// delegate owns the delivery and sets this property to nil when it is deallocated.
  var delegate: (any DeliveryDelegate)? { get set }

  /// Starts the response if it has not started. The first flush sends the head.
  func begin()

  /// Makes room for a delta of `bytes`: sends the buffered output if that is necessary, and possible without waiting for
  /// the reader.
  ///
  /// - Returns: whether the delta can be appended.
  func makeRoom(for bytes: Int) -> Bool

  /// Appends a delta, which is never empty, to the output of the next flush, and starts the response if it has not
  /// started. Schedules a flush for when the current event has been handled, so that all deltas of one event are sent
  /// in one write.
  func append(_ delta: borrowing Span<UInt8>)

  /// Appends a delta that is more than text, like ``append(_:)-(Span<UInt8>)``.
  func append(_ chunk: OutputChunk)

  /// Advances past a delta that the client already has, before the response starts.
  func skip(_ delta: borrowing Span<UInt8>)

  /// Advances past a delta that is more than text.
  func skip(_ chunk: OutputChunk)

  /// Sends the buffered output, waiting for a slow reader within the write timeout.
  func flush() async throws(WriteError)

  /// Stops sending heartbeats. A response that has not started is then no longer started by one.
  func stopHeartbeats()

  /// Closes the response with its terminal record, or with an error response if it failed before it started.
  ///
  /// - Parameter text: the complete text, if ``needsText`` is set.
  /// - Returns: false if the reader did not accept the terminal record or the complete response.
  func close(_ termination: Termination, text: String) async -> Bool
}

extension BlockingPool {
  /// Runs `encode`, on a thread of the pool if its value is too large for the loop, such as a report.
  func encode<Encoded: Sendable>(isLarge: Bool, _ encode: @escaping @Sendable () -> Encoded) async -> Encoded {
    isLarge ? await run(encode) : encode()
  }
}
