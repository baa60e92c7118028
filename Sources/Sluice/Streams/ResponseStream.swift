import EventLoop
import FastCGI
import Upstream

/// One answer on its way to a client: deltas in, flushed records out, one terminal record at the end.
///
/// It is given to a handler, which sends with ``send(_:)`` and returns when the answer is complete. Belongs to its
/// loop: the compiler keeps it in the handler's task.
public final class ResponseStream: DeltaReceiver, Flushing {
  /// The stream's id (a UUIDv7), which the client has from the header `Sluice-Stream-Id`.
  public let id: String
  /// The id under which the answer is kept, where it is: the stream's own, unless it is an answer given again.
  let messageID: String
  /// The text sent so far, where it is to be kept.
  private(set) var text = ""

  // What the log tells at the end.
  let startedAt: LoopClock.Instant
  private(set) var firstDeltaAt: LoopClock.Instant?
  /// When something was last sent, or taken into an answer in one piece.
  private var lastFlushAt: LoopClock.Instant
  /// When the model last sent something of which nothing need have come out: text that was withheld, reasoning.
  private var lastActivityAt: LoopClock.Instant?
  private(set) var deltas = 0
  private(set) var textBytes = 0
  private(set) var sentBytes = 0

  let reactor: Reactor
  private let limits: StreamLimits
  private let retainsText: Bool
  private let sendsEventID: Bool
  private let redactor: Redactor?
  /// The right to answer the requests with an Idempotency-Key, of which this is one.
  let claim: ReplayClaim?
  private let whole: GenerationRequest.JSONBody?
  private let pool: BlockingPool?
  private var dialect: any Dialect
  private var state = StreamState()
  private var writer: ResponseWriter?
  private var body: BodyWriter?
  private var isFlushing = false
  /// Whether a flush is due when the present event has been handled.
  private var isGathering = false
  private var requestedEnding: Termination?
  /// Whether there is one: asked at every token.
  private(set) var mustEnd = false
  /// Whether the handler was told of the end: what it returns then is no whole answer, whatever it does.
  private(set) var wasTold = false
  private var cancelTask: (() -> Void)?
  /// The answer that is being relayed: its reader is woken for what could not be sent at once.
  var relayed: ModelOutput?
  private var heartbeatTimer: Timer?
  private var waitTimer: Timer?
  private var totalTimer: Timer?

  /// - Parameter messageID: the stream's id unless given.
  init(
    id: String, messageID: String? = nil, form: consuming Form, limits: StreamLimits, reactor: Reactor,
    writer: consuming ResponseWriter
  ) {
    self.id = id
    self.messageID = messageID ?? id
    self.dialect = form.dialect
    let (whole, retainsText) = (form.whole, form.retainsText)
    self.sendsEventID = form.sendsEventID
    self.redactor = form.redactor
    self.claim = form.claim
    self.pool = form.pool
    self.whole = whole
    self.retainsText = retainsText || whole != nil
    self.limits = limits
    self.reactor = reactor
    self.startedAt = reactor.now
    self.lastFlushAt = reactor.now
    let transport = writer.transport
    self.writer = consume writer
    transport.peerWent = { [weak self] in self?.end(.disconnected) }
    if transport.isPeerGone { end(.disconnected) }
  }

  // MARK: For the handler

  /// Sends a piece of the answer, and the head before the first one. Returns when the web server has it, which may
  /// take as long as the client is slow.
  ///
  /// - Throws: ``StreamClosedError`` when the stream has ended meanwhile, ``Failure`` when the answer is too long.
  public func send(_ text: String) async throws {
    try put(text)
    try await flush()
  }

  /// Sends the head now instead of with the first delta: the answer is certain to come.
  public func open() async throws {
    try begin()
    try await flush()
  }

  /// Adds a delta to what the next ``flush()`` sends, less what a redactor takes out or holds back.
  func put(_ delta: String) throws {
    try checkEnd()
    if let redactor {
      lastActivityAt = reactor.now
      try putRedacted(redactor.feed(delta))
    } else {
      try putRedacted(delta)
    }
  }

  /// The text is complete: what was held back for what might have followed goes out.
  func putHeld() throws {
    if let redactor { try putRedacted(redactor.finish()) }
  }

  /// Sends what a redactor still holds back: the handler has said all.
  func finishText() async throws {
    guard redactor != nil, !mustEnd else { return }
    try putHeld()
    try await flush()
  }

  private func putRedacted(_ delta: String) throws {
    guard !delta.isEmpty else { return }
    deltas += 1
    textBytes += delta.utf8.count
    guard textBytes <= limits.maximumTextBytes else {
      throw Failure(.upstreamError, "The answer is longer than \(limits.maximumTextBytes) bytes.")
    }
    if firstDeltaAt == nil { firstDeltaAt = reactor.now }
    if retainsText { text += delta }
    if whole != nil { flushed() }
    if body == nil { try begin() }
    if let body { dialect.encode(.delta(delta), into: &body.buffer) }
  }

  /// Sends what was put, waiting for the client as long as its slowness is allowed.
  func flush() async throws {
    isGathering = false
    if let body, !body.buffer.isEmpty {
      isFlushing = true
      defer { isFlushing = false }
      do throws(WriteError) { try await body.flush() } catch {
        end(.disconnected)
        wasTold = true
        throw StreamClosedError()
      }
      flushed()
    }
    try checkEnd()
  }

  /// The model has said all: what follows is our own work, and its limits are met.
  func modelHasEnded() {
    waitTimer?.cancel()
    totalTimer?.cancel()
  }

  /// The rules that were in force when the stream began. What is made of its text is redacted by the same.
  var redactionRules: [Redactions.Rule] { redactor?.rules ?? [] }

  // MARK: For the one who runs it

  /// Starts the clocks. `cancel` is to make the handler come to its end.
  func start(cancel: @escaping () -> Void) {
    if mustEnd { return cancel() }
    cancelTask = cancel
    scheduleWait(after: min(limits.firstToken, limits.idle))
    totalTimer = reactor.schedule(after: limits.total) { [unowned self] in
      end(.failed(Failure(.upstreamTimeout, "The answer took longer than \(limits.total).")))
    }
    if limits.heartbeat > .zero, whole == nil { scheduleHeartbeat(after: limits.heartbeat) }
  }

  /// Asks the stream to end, for a reason other than the handler's own. The first reason counts.
  func end(_ ending: Termination) {
    guard !mustEnd else { return }
    mustEnd = true
    requestedEnding = ending
    cancelTask.take()?()
  }

  /// Ends the stream, once its handler has returned or thrown: the terminal record, and no timer left.
  ///
  /// - Parameter ending: the handler's own reason, which counts unless another came before.
  /// - Returns: how it ended in fact.
  func close(_ ending: Termination, for request: Request) async -> Termination {
    cancelTask = nil
    for timer in [heartbeatTimer, waitTimer, totalTimer] { timer?.cancel() }
    // An answer that was completed, and perhaps stored, stays so: a stop that comes too late changes nothing.
    var ending = ending
    if let requestedEnding {
      switch (ending, requestedEnding) {
      case (.completed, .stopped) where !wasTold, (.completed, .failed) where !wasTold: break
      default: ending = requestedEnding
      }
    }
    // An answer in one piece has no place for a record: it is refused instead.
    var told = ending
    if whole != nil, case .stopped = ending { told = .failed(Failure(.internalError, "The answer was stopped.")) }
    switch state.end(told) {
    case .refuse(let failure): await writer.take()?.respond(failure.response(to: request))
    case .sendHeadAndRecord:
      if let whole, case .completed(let finish) = ending {
        let (text, isLarge) = (text, text.utf8.count > 64 * 1024 || !finish.extraMembers.all.isEmpty)
        let response = await encode(isLarge) { Response.json(whole(finish, text)) }
        if await writer.take()?.respond(response) == false { ending = .disconnected }
        break
      }
      beginBody()
      fallthrough
    case .sendRecord:
      guard let body else { break }
      var isLarge = false
      if case .completed(let finish) = ending { isLarge = !finish.extraMembers.all.isEmpty }
      let (dialect, event) = (dialect, ending.event)
      let record = await encode(isLarge) {
        var dialect = dialect
        var record: [UInt8] = []
        dialect.encode(event, into: &record)
        return record
      }
      body.buffer.append(contentsOf: record)
      do throws(WriteError) { try await body.finish() } catch { ending = .disconnected }
    case .abort, .none: break
    }
    sentBytes = body?.sentBytes ?? textBytes
    // Whatever was not finished is broken off here.
    writer = nil
    body = nil
    return ending
  }

  /// Encodes what may be large, as a report, on a thread of the pool.
  private func encode<Encoded: Sendable>(_ isLarge: Bool, _ encode: @escaping @Sendable () -> Encoded) async -> Encoded
  {
    guard isLarge, let pool else { return encode() }
    return await pool.run(encode)
  }

  // MARK: The fast way

  package func receive(_ delta: String) -> Bool {
    guard !isFlushing, !mustEnd else { return false }
    // Room for the delta, of which each byte may be escaped by six, and what a dialect puts around it; a larger one
    // takes the slow way, and so does the first.
    if whole == nil {
      guard let body, body.canSend(6 * delta.utf8.count + 512) else { return false }
    }
    // What the stream's limits have against it is said to the task, which then ends the stream.
    guard (try? put(delta)) != nil else { return false }
    if body != nil, !isGathering {
      isGathering = true
      reactor.flushSoon(self)
    }
    return true
  }

  package func didReceiveActivity() { lastActivityAt = reactor.now }

  package func flushGathered() {
    guard isGathering, let body else { return }
    isGathering = false
    do throws(WriteError) {
      // More may have come out than was taken in: text that a redactor had withheld, a replacement, a long record.
      if try body.flushNow() { flushed() } else { relayed?.wakeReader() }
    } catch { end(.disconnected) }
  }

  /// One store a flush: the timers look at it when they come, and go on for what is left.
  private func flushed() { lastFlushAt = reactor.now }

  // MARK: Parts

  private func checkEnd() throws(StreamClosedError) {
    guard mustEnd else { return }
    wasTold = true
    throw StreamClosedError()
  }

  private func begin() throws {
    try checkEnd()
    // An answer in one piece keeps its head until it is whole.
    guard whole == nil else { return }
    switch state.begin() {
    case .sendHead: beginBody()
    case .alreadySent: break
    case .tooLate: throw StreamClosedError()
    }
  }

  private func beginBody() {
    var head = ResponseHead.eventStream
    if let id = FieldValue(id) { head.set("Sluice-Stream-Id", id) }
    dialect.addFields(to: &head)
    guard let writer = writer.take() else { return }
    let body = writer.begin(head)
    // An event of nothing but an id is shown to nobody.
    if sendsEventID { body.buffer.append(contentsOf: "id: \(id)\n\n".utf8) }
    dialect.encode(.started, into: &body.buffer)
    self.body = body
  }

  private func scheduleHeartbeat(after delay: Duration) {
    heartbeatTimer = reactor.schedule(after: delay) { [unowned self] in
      let silence = reactor.now - lastFlushAt
      guard silence >= limits.heartbeat else { return scheduleHeartbeat(after: limits.heartbeat - silence) }
      // The head that was held for the upstream is held no longer: a proxy would lose patience.
      if (try? begin()) != nil, let body {
        var record: [UInt8] = []
        dialect.encode(.heartbeat, into: &record)
        body.sendNow(record)
      }
      scheduleHeartbeat(after: limits.heartbeat)
    }
  }

  private func scheduleWait(after delay: Duration) {
    waitTimer = reactor.schedule(after: delay) { [unowned self] in
      let isBegun = firstDeltaAt != nil || lastActivityAt != nil
      let limit = isBegun ? limits.idle : limits.firstToken
      let silence = reactor.now - (isBegun ? max(lastFlushAt, lastActivityAt ?? lastFlushAt) : startedAt)
      if isFlushing {
        // It is the client that is slow, for which the write timeout is there.
        scheduleWait(after: limits.idle)
      } else if silence < limit {
        scheduleWait(after: limit - silence)
      } else {
        end(.failed(Failure(.upstreamTimeout, "The model said nothing for \(limit).")))
      }
    }
  }
}
