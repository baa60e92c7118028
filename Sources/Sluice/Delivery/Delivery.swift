import EventLoop
import FastCGI

/// Is told of what happens to a delivery's reader, on the loop.
protocol DeliveryDelegate: AnyObject {
  /// The reader has disconnected, or cannot be written to.
  func deliveryDidDisconnect()

  /// A scheduled flush could not send everything at once: a ``Delivery/flush()`` must follow.
  func deliveryDidBlock()
}

/// One reader of a generation: how its response is written. It does not know who produces the deltas.
///
/// Belongs to its loop. Nothing here blocks; what must wait for a slow reader is `async`.
protocol Delivery: AnyObject {
  /// Whether ``close(_:text:)`` needs the complete text.
  var needsText: Bool { get }

  /// Bytes sent to the web server.
  var sentBytes: Int { get }

  /// When deltas were last sent, or taken where they are sent together.
  var lastSentAt: LoopClock.Instant { get }

  /// Whether a ``flush()`` waits for the reader.
  var isWaitingForReader: Bool { get }

  /// Whether the reader had disconnected before there was a ``delegate``.
  var isReaderDisconnected: Bool { get }

  /// Is told of what happens to the reader. Unowned, because a weak reference makes every retain of its object a slow one;
  /// the delegate owns the delivery and takes itself away when it is released.
  var delegate: (any DeliveryDelegate)? { get set }

  /// Starts the response, unless it has started: its head is sent by the first flush.
  func begin()

  /// Whether a delta of `bytes` can be appended and sent without waiting for the reader.
  func canTake(_ bytes: Int) -> Bool

  /// Appends a delta to what the next flush sends. Starts the response.
  func append(_ delta: String)

  /// Sends what was appended as soon as the present event has been handled: what arrives together is one write.
  func scheduleFlush()

  /// Sends what was appended; waits as long as the reader's slowness is allowed.
  func flush() async throws(WriteError)

  /// Sends no heartbeats from here on, and does not start a response for one.
  func stopHeartbeats()

  /// Closes the response with its terminal record, or with an error response when it has not started.
  ///
  /// - Parameter text: all of the text, where ``needsText`` is set.
  /// - Returns: false when the reader did not take it.
  func close(_ termination: Termination, text: String) async -> Bool
}

extension BlockingPool {
  /// Encodes on a thread of the pool what is too large for the loop, a report for example.
  func encode<Encoded: Sendable>(isLarge: Bool, _ encode: @escaping @Sendable () -> Encoded) async -> Encoded {
    isLarge ? await run(encode) : encode()
  }
}
