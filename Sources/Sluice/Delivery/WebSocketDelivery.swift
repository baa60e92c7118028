import EventLoop
import FastCGI
import Upstream
import WebSocket

/// A response on a WebSocket: the message `open`, the records of a dialect as messages, of which one is terminal.
///
/// The connection sends pings while nothing else is sent, and closes if the client reads nothing for too long.
final class WebSocketDelivery: Delivery {
  let needsText = false
  private(set) var sentBytes = 0
  private(set) var lastSentAt: LoopClock.Instant
  private(set) var isWaitingForReader = false
  let isReaderDisconnected: Bool
  unowned var delegate: (any DeliveryDelegate)?

  private let id: String
  private let stream: WebSocketStream
  private let reactor: Reactor
  private let pool: BlockingPool
  private var dialect: any Dialect
  private var state = DeliveryState()
  private var hasBegun = false
  /// Whether the client already has deltas.
  private var hasSkipped = false
  /// The storage for the records of one event.
  private var scratch: [UInt8] = []
  private var isDisconnected: Bool
  private let drained = Waiter()
  private var openTimer: Timer?

  /// - Parameter heartbeat: the time after which `open` is sent although the model has not accepted; 0 disables that.
  init(
    _ id: String, _ dialect: any Dialect, heartbeat: Duration, to stream: WebSocketStream, _ reactor: Reactor,
    _ pool: BlockingPool
  ) {
    self.id = id
    self.dialect = dialect
    self.stream = stream
    self.reactor = reactor
    self.pool = pool
    lastSentAt = reactor.now
    isReaderDisconnected = stream.connection.isClosed
    isDisconnected = isReaderDisconnected
    stream.streamID = id
    stream.delivery = self
    if heartbeat > .zero { openTimer = reactor.schedule(after: heartbeat) { [unowned self] in begin() } }
  }

  // MARK: Deltas

  func begin() {
    guard state.begin() == .sendHead else { return }
    stopHeartbeats()
    hasBegun = true
    sendStart()
  }

  private func sendStart() {
    stream.appendOpen(id)
    // A client that continues the stream has received this event already.
    if hasSkipped { return }
    var records = takeRecords()
    dialect.encode(.started, into: &records)
    send(records)
  }

  func makeRoom(for bytes: Int) -> Bool {
    // The worst case of JSON escapes, and what surrounds the text.
    hasBegun && stream.connection.makeRoom(for: 6 * bytes + 512)
  }

  func append(_ delta: borrowing Span<UInt8>) { append { $0.encode(delta: delta, into: &$1) } }

  func append(_ chunk: OutputChunk) { append { $0.encode(chunk, into: &$1) } }

  @inline(__always) private func append(_ encode: (inout any Dialect, inout Records) -> Void) {
    if !hasBegun { begin() }
    var records = takeRecords()
    encode(&dialect, &records)
    send(records)
  }

  func skip(_ delta: borrowing Span<UInt8>) { skip { $0.encode(delta: delta, into: &$1) } }

  func skip(_ chunk: OutputChunk) { skip { $0.encode(chunk, into: &$1) } }

  private func skip(_ encode: (inout any Dialect, inout Records) -> Void) {
    var records = takeRecords()
    if !hasSkipped { dialect.encode(.started, into: &records) }
    hasSkipped = true
    encode(&dialect, &records)
    keep(records)
  }

  private func send(_ records: consuming Records) {
    sentBytes += stream.append(records.bytes)
    lastSentAt = reactor.now
    keep(records)
  }

  private func takeRecords() -> Records { Records(exchange(&scratch, with: [])) }

  private func keep(_ records: consuming Records) {
    var bytes = records.bytes
    guard bytes.capacity <= Self.maximumScratchBytes else { return }
    bytes.removeAll(keepingCapacity: true)
    scratch = bytes
  }

  private static let maximumScratchBytes = 1024

  func flush() async throws(WriteError) {
    stream.connection.flush()
    isWaitingForReader = true
    defer { isWaitingForReader = false }
    while !isDisconnected, stream.connection.isBlocked { await drained.wait() }
    if isDisconnected { throw .peerClosed }
    lastSentAt = reactor.now
  }

  /// The connection has sent all of its output, or has been closed.
  func connectionDidChange() {
    drained.wake()
    guard stream.connection.isClosed, !isDisconnected else { return }
    isDisconnected = true
    delegate?.deliveryDidDisconnect()
  }

  // MARK: Closing

  func stopHeartbeats() { openTimer?.cancel() }

  func close(_ termination: Termination, text: String) async -> Bool {
    stopHeartbeats()
    defer { stream.end() }
    switch state.close(termination) {
    case .refuse(let failure):
      stream.refuse(failure)
      return true
    case .sendHeadAndRecord:
      // A stream that was stopped before it was open has nothing but its terminal record.
      if case .stopped = termination {} else { sendStart() }
    case .sendRecord: break
    case .abort, .none: return true
    }
    let (dialect, event) = (dialect, termination.event)
    let records = await pool.encode(isLarge: termination.isLarge) {
      var (dialect, records) = (dialect, Records())
      dialect.encode(event, into: &records)
      return records.bytes
    }
    sentBytes += stream.append(records)
    do throws(WriteError) { try await flush() } catch { return false }
    return true
  }
}
