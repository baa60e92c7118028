import EventLoop
import EventStream
import FastCGI
import Upstream

/// A response of Server-Sent Events: the head, the deltas as records of a dialect, heartbeats while nothing else is
/// sent, and one terminal record.
final class EventStreamDelivery: Delivery, Flushable {
  let needsText = false
  private(set) var lastSentAt: LoopClock.Instant
  let isReaderDisconnected: Bool
  unowned var delegate: (any DeliveryDelegate)?
  private let transport: any ResponseTransport
  /// The number of bytes sent by the time the response was closed.
  private var closedBytes = 0

  private let id: String
  /// The start of an event id's line, up to the number.
  private let idPrefix: [UInt8]
  private var ids: EventIDs
  /// The number of deltas so far.
  private var deltas = 0
  private let heartbeat: Duration
  private let request: Request
  private let reactor: Reactor
  private let pool: BlockingPool
  private var dialect: any Dialect
  private var state = DeliveryState()
  /// Nil once the response has started or has been closed.
  private var writer: ResponseWriter?
  private var body: BodyWriter?
  private var isFlushScheduled = false
  /// The number of writes since the last scheduled flush that made room for more output.
  private var writesInEvent = 0
  private var heartbeatTimer: Timer?

  private static let maximumWritesInEvent = 16

  init(
    _ id: String, _ dialect: any Dialect, ids: EventIDs, heartbeat: Duration, _ request: Request,
    _ reactor: Reactor, _ pool: BlockingPool, _ writer: consuming ResponseWriter
  ) {
    self.id = id
    self.dialect = dialect
    self.ids = ids
    idPrefix = ids == .none ? [] : Array("id: \(id).".utf8)
    self.heartbeat = heartbeat
    self.request = request
    self.reactor = reactor
    self.pool = pool
    lastSentAt = reactor.now
    transport = writer.transport
    isReaderDisconnected = transport.isPeerClosed
    self.writer = consume writer
    transport.onPeerClosed = { [unowned self] in delegate?.deliveryDidDisconnect() }
    if heartbeat > .zero { scheduleHeartbeat(after: heartbeat) }
  }

  var sentBytes: Int { body?.sentBytes ?? closedBytes }

  var isWaitingForReader: Bool { body?.isFlushing ?? false }

  // MARK: Deltas

  func begin() {
    if state.begin() == .sendHead { beginBody() }
  }

  func makeRoom(for bytes: Int) -> Bool {
    guard let body else { return false }
    // Requires room for the worst case: six bytes per byte (JSON escapes) plus framing.
    let bytes = 6 * bytes + 512
    if body.hasRoom(for: bytes) { return true }
    // One read from a fast model brings more than one write can send. The number of writes is limited, because a
    // generator that never waits would otherwise keep the loop from its other streams.
    guard writesInEvent < Self.maximumWritesInEvent else { return false }
    writesInEvent += 1
    sendBuffer()
    return body.hasRoom(for: bytes)
  }

  func append(_ delta: borrowing Span<UInt8>) { append { $0.encode(delta: delta, into: &$1) } }

  func append(_ chunk: OutputChunk) { append { $0.encode(chunk, into: &$1) } }

  @inline(__always) private func append(_ encode: (inout any Dialect, inout Records) -> Void) {
    if body == nil { begin() }
    guard let body else { return }
    var records = Records(body.takeBuffer(from: reactor))
    if ids == .none {
      encode(&dialect, &records)
    } else {
      deltas += 1
      let start = records.beginEvent(idPrefix, number: deltas)
      encode(&dialect, &records)
      if records.endEvent(at: start), ids == .first { ids = .none }
    }
    body.buffer = records.bytes
    guard !isFlushScheduled else { return }
    isFlushScheduled = true
    reactor.scheduleFlush(self)
  }

  func skip(_ delta: borrowing Span<UInt8>) { skip { $0.encode(delta: delta, into: &$1) } }

  func skip(_ chunk: OutputChunk) { skip { $0.encode(chunk, into: &$1) } }

  private func skip(_ encode: (inout any Dialect, inout Records) -> Void) {
    var records = Records(reactor.takeBuffer())
    if deltas == 0 { dialect.encode(.started, into: &records) }
    encode(&dialect, &records)
    deltas += 1
    reactor.keepBuffer(records.bytes)
  }

  func flushPending() {
    writesInEvent = 0
    guard isFlushScheduled else { return }
    isFlushScheduled = false
    sendBuffer()
  }

  /// Sends the buffered output, as far as that is possible without waiting.
  private func sendBuffer() {
    guard let body, !body.buffer.isEmpty else { return }
    do throws(WriteError) {
      // The output can exceed the room that `makeRoom(for:)` made: a redactor can release withheld text or insert a
      // replacement, and a record can be long.
      guard try body.flushNow() else {
        delegate?.deliveryDidBlock()
        return
      }
      lastSentAt = reactor.now
      reactor.keepBuffer(exchange(&body.buffer, with: []))
    } catch { delegate?.deliveryDidDisconnect() }
  }

  func flush() async throws(WriteError) {
    isFlushScheduled = false
    guard let body, !body.buffer.isEmpty else { return }
    // Apache passes on a head only together with the first bytes of the body: a comment, if there is no record yet.
    if body.sentBytes == 0, body.buffer.suffix(4).elementsEqual("\r\n\r\n".utf8) {
      body.buffer.append(contentsOf: EventStreamEncoder.heartbeat)
    }
    try await body.flush()
    lastSentAt = reactor.now
  }

  // MARK: Closing

  func close(_ termination: Termination, text: String) async -> Bool {
    stopHeartbeats()
    // The connection can serve its next request before this delivery is deallocated.
    transport.onPeerClosed = nil
    // Releasing an unfinished writer or body aborts the response.
    defer {
      closedBytes = sentBytes
      writer = nil
      body = nil
    }
    switch state.close(termination) {
    case .refuse(let failure): await writer.take()?.respond(failure.response(to: request))
    case .sendHeadAndRecord:
      beginBody()
      return await sendRecord(of: termination)
    case .sendRecord: return await sendRecord(of: termination)
    case .abort, .none: break
    }
    return true
  }

  private func sendRecord(of termination: Termination) async -> Bool {
    guard let body else { return false }
    let (dialect, event) = (dialect, termination.event)
    let idPrefix = ids == .none ? [] : idPrefix
    let record = await pool.encode(isLarge: termination.isLarge) {
      var (dialect, records) = (dialect, Records())
      let start = idPrefix.isEmpty ? nil : records.beginEvent(idPrefix, number: nil)
      dialect.encode(event, into: &records)
      if let start { records.endEvent(at: start) }
      return records.bytes
    }
    body.buffer.append(contentsOf: record)
    do throws(WriteError) { try await body.finish() } catch { return false }
    return true
  }

  // MARK: Encoding

  private func beginBody() {
    var head = ResponseHead.eventStream
    if let id = FieldValue(id) { head.set("Sluice-Stream-Id", id) }
    dialect.addFields(to: &head)
    guard let writer = writer.take() else { return }
    let body = writer.begin(head)
    self.body = body
    // A client that continues the stream has received this event already.
    if deltas == 0 { encode(.started, into: body) }
  }

  private func encode(_ event: StreamEvent, into body: BodyWriter) {
    var records = Records(body.takeBuffer(from: reactor))
    dialect.encode(event, into: &records)
    body.buffer = records.bytes
  }

  // MARK: Heartbeats

  func stopHeartbeats() {
    heartbeatTimer?.cancel()
    heartbeatTimer = nil
  }

  private func scheduleHeartbeat(after delay: Duration) {
    heartbeatTimer = reactor.schedule(after: delay) { [unowned self] in
      let silence = reactor.now - lastSentAt
      guard silence >= heartbeat else { return scheduleHeartbeat(after: heartbeat - silence) }
      // Also starts a deferred response, so that a proxy does not time out.
      begin()
      if let body {
        var records = Records()
        dialect.encode(.heartbeat, into: &records)
        body.sendNow(records.bytes)
      }
      scheduleHeartbeat(after: heartbeat)
    }
  }
}

extension BodyWriter {
  /// Moves the buffer out, to append to it. An empty one is replaced by the buffer that all streams of the loop share:
  /// its memory is in the processor's cache, and a stream that sends nothing needs none.
  ///
  /// Moving the buffer out and back costs two checked accesses to the property instead of one per append.
  fileprivate func takeBuffer(from reactor: Reactor) -> [UInt8] {
    let bytes = exchange(&buffer, with: [])
    return bytes.isEmpty ? reactor.takeBuffer() : bytes
  }
}
