import EventLoop
import FastCGI
import Upstream

/// One JSON response, written when the generation is complete. A failure or a stop becomes an error response.
final class JSONDelivery: Delivery {
  let needsText = true
  private(set) var sentBytes = 0
  private(set) var lastSentAt: LoopClock.Instant
  let isWaitingForReader = false
  let isReaderDisconnected: Bool
  unowned var delegate: (any DeliveryDelegate)?
  private let transport: any ResponseTransport

  private let body: DeliveryFormat.JSONBody
  private let request: Request
  private let reactor: Reactor
  private let pool: BlockingPool
  /// Nil once the response has been closed.
  private var writer: ResponseWriter?

  init(
    _ body: @escaping DeliveryFormat.JSONBody, _ request: Request, _ reactor: Reactor, _ pool: BlockingPool,
    _ writer: consuming ResponseWriter
  ) {
    self.body = body
    self.request = request
    self.reactor = reactor
    self.pool = pool
    lastSentAt = reactor.now
    transport = writer.transport
    isReaderDisconnected = transport.isPeerClosed
    self.writer = consume writer
    transport.onPeerClosed = { [unowned self] in delegate?.deliveryDidDisconnect() }
  }

  func begin() {}
  func makeRoom(for bytes: Int) -> Bool { true }
  func append(_ delta: borrowing Span<UInt8>) { lastSentAt = reactor.now }
  func append(_ chunk: OutputChunk) { lastSentAt = reactor.now }
  func skip(_ delta: borrowing Span<UInt8>) {}
  func skip(_ chunk: OutputChunk) {}
  func flush() async throws(WriteError) {}
  func stopHeartbeats() {}

  func close(_ termination: Termination, text: String) async -> Bool {
    transport.onPeerClosed = nil
    guard let writer = writer.take() else { return true }
    let response: Response
    switch termination {
    case .completed(let result):
      let (body, isLarge) = (body, text.utf8.count > 64 * 1024 || termination.isLarge)
      response = await pool.encode(isLarge: isLarge) { .json(body(result, text)) }
    case .failed(let failure): response = failure.response(to: request)
    case .stopped: response = Failure(.internalError, "The request was stopped.").response(to: request)
    // Dropping the unused writer aborts the connection.
    case .disconnected: return true
    }
    let isAccepted = await writer.respond(response)
    if isAccepted { sentBytes = response.body.count }
    if case .completed = termination { return isAccepted }
    return true
  }
}
