import Bytes
import EventLoop
import FastCGI
import Upstream

/// One run of a generator or a handler for one request: deltas in, redacted text out to a delivery, one termination.
///
/// Independent of the wire format. Belongs to its loop; the compiler confines it to the task of the request.
final class Generation {
  /// The properties of a request that its generation depends on.
  struct Options {
    /// Whether ``text`` is retained. It need not grow in a generation that is not stored.
    var retainsText = true
    /// Redacts the text before it is used in any other way.
    var redactor: Redactor?
    /// The transcript to which the delivery appends the text. ``text`` is then that of the transcript.
    var transcript: Transcript?
  }

  /// The id of the stream (a UUIDv7), which the client receives as `Sluice-Stream-Id`.
  let id: String
  /// The id of the stored message; differs from ``id`` only when a stored response is replayed.
  let messageID: String
  let reactor: Reactor
  /// The redacted text so far, if it is retained. Creates a string.
  var text: String { transcript?.text ?? String(decoding: textBuffer, as: UTF8.self) }

  // The log and the metrics report these.
  let startedAt: LoopClock.Instant
  private(set) var firstDeltaAt: LoopClock.Instant?
  private(set) var deltas = 0
  private(set) var textBytes = 0
  var sentBytes: Int { delivery.sentBytes }

  private let delivery: any Delivery
  private let retainsText: Bool
  /// Whether ``more`` is everything, instead of the refusal and the calls of tools.
  private let retainsMore: Bool
  let transcript: Transcript?
  private var textBuffer: [UInt8] = []
  /// The response so far except the text of its first choice, redacted and joined.
  private(set) var more: OutputChunk?
  private var moreBytes = 0
  private let redactor: Redactor?
  /// Redacts the deltas that are more than text.
  private var chunkRedactor: ChunkRedactor?
  private let limits: GenerationLimits
  private var deadlines: GenerationDeadlines?
  private var state = GenerationState()
  /// The time of the model's last activity that possibly produced no output, such as text that was withheld.
  private var lastActivityAt: LoopClock.Instant?
  private var cancelHandler: (() -> Void)?
  /// The completion of the last output that was relayed.
  private(set) var relayedCompletion: Completion?
  /// The output that is being relayed. Its reader is woken to send what could not be sent at once.
  var source: ModelOutput? {
    didSet {
      sourceStartedAt = reactor.now
      deltasBeforeSource = deltas
    }
  }
  private var sourceStartedAt: LoopClock.Instant
  private var deltasBeforeSource = 0

  init(
    id: String, messageID: String, _ options: consuming Options, limits: GenerationLimits, reactor: Reactor,
    delivery: any Delivery
  ) {
    self.id = id
    self.messageID = messageID
    self.reactor = reactor
    self.delivery = delivery
    transcript = options.transcript
    retainsMore = options.retainsText || delivery.needsText
    retainsText = options.transcript == nil && retainsMore
    self.limits = limits
    redactor = options.redactor
    startedAt = reactor.now
    sourceStartedAt = reactor.now
    delivery.delegate = self
    if delivery.isReaderDisconnected { terminate(.disconnected) }
  }

  deinit { delivery.delegate = nil }

  /// The redaction rules in force when the generation started. A result derived from its text is redacted by the same
  /// rules.
  var redactionRules: [RedactionRules.Rule] { redactor?.rules ?? [] }

  /// Whether the text is complete and the handler has not observed a termination since.
  var isTextComplete: Bool { state.isTextComplete }

  // MARK: Interface for the handler

  /// Throws if termination was requested, which the handler has then observed.
  func checkTermination() throws(StreamClosedError) { try state.checkTermination() }

  /// Records how an output was completed, for a handler that creates no result of its own. Not part of the relay,
  /// because every stream keeps that function's frame in memory.
  func didRelay(_ completion: Completion) { relayedCompletion = completion }

  /// Sends a delta, and the head before the first one. Returns when the web server has accepted it.
  func send(_ delta: String) async throws {
    try append(delta)
    try await flush()
  }

  /// Sends a delta that is more than text, like ``send(_:)-(String)``.
  func send(_ chunk: OutputChunk) async throws {
    try append(chunk)
    try await flush()
  }

  /// Sends the head now instead of with the first delta.
  func open() async throws {
    try begin()
    try await flush()
  }

  /// Starts the response: the next flush sends the head.
  func begin() throws(StreamClosedError) {
    try checkTermination()
    delivery.begin()
  }

  /// Appends a delta to the output of the next ``flush()``, except text that the redactor replaces or withholds.
  func append(_ delta: String) throws { try append(delta.utf8Span.span) }

  /// Appends a delta in UTF-8, like ``append(_:)-(String)``.
  private func append(_ delta: borrowing Span<UInt8>) throws {
    try state.checkTermination()
    if let redactor {
      lastActivityAt = reactor.now
      let redacted = try redactor.feed(delta)
      try appendRedacted(redacted.span)
    } else {
      try appendRedacted(delta)
    }
  }

  /// Makes room for a delta of `bytes`; see ``Delivery/makeRoom(for:)``.
  func makeRoom(for bytes: Int) -> Bool { delivery.makeRoom(for: bytes) }

  private func appendRedacted(_ delta: borrowing Span<UInt8>) throws {
    guard delta.count > 0 else { return }
    try count(delta.count)
    if retainsText { textBuffer.append(delta) }
    delivery.append(delta)
  }

  /// Counts a delta.
  private func count(_ bytes: Int) throws(Failure) {
    deltas += 1
    textBytes += bytes
    try checkSize(textBytes + (chunkRedactor?.withheldBytes ?? 0))
    if firstDeltaAt == nil { firstDeltaAt = reactor.now }
  }

  private func checkSize(_ bytes: Int) throws(Failure) {
    guard bytes <= limits.maximumTextBytes else {
      throw Failure(.upstreamError, "The response exceeds the limit of \(limits.maximumTextBytes) bytes.")
    }
  }

  /// Appends a delta that is more than text.
  func append(_ chunk: OutputChunk) throws {
    try state.checkTermination()
    // Its dialect may have no record for it.
    lastActivityAt = reactor.now
    guard let redactor else { return try appendRedacted(chunk) }
    let text = chunk.text
    if !text.isEmpty { try append(text) }
    let chunkRedactor = chunkRedactor ?? ChunkRedactor(redactor.rules)
    self.chunkRedactor = chunkRedactor
    let redacted = try chunkRedactor.feed(chunk)
    try checkSize(textBytes + chunkRedactor.withheldBytes)
    try appendRedacted(redacted)
  }

  private func appendRedacted(_ chunk: OutputChunk) throws {
    if chunk.isEmpty { return }
    try count(chunk.textBytes)
    if retainsText { textBuffer.append(contentsOf: chunk.text.utf8) }
    try retain(chunk)
    delivery.append(chunk)
  }

  /// Adds a delta to ``more``.
  private func retain(_ chunk: OutputChunk) throws(Failure) {
    let kept = retainsMore ? chunk.withoutText : chunk.callsAndRefusal
    // What is not text, such as log probabilities, can be many times as large.
    moreBytes += transcript == nil ? kept.joinedBytes : chunk.byteCount
    guard moreBytes <= 16 * limits.maximumTextBytes else {
      throw Failure(
        .upstreamError, "The response exceeds the limit of \(16 * limits.maximumTextBytes) bytes with all its parts.")
    }
    if kept.isEmpty { return }
    if more == nil { more = OutputChunk() }
    more?.join(kept)
  }

  /// Sends the appended deltas, waiting for a slow reader until the write timeout expires.
  func flush() async throws {
    do throws(WriteError) { try await delivery.flush() } catch { terminate(.disconnected) }
    try state.checkTermination()
  }

  /// Sends the text withheld as a possible match; no more input follows. Cancels the deadlines, because storing the
  /// result is not subject to them.
  ///
  /// - Throws: ``StreamClosedError`` when the generation must terminate before that.
  func finishText() async throws {
    if state.isTextComplete { return }
    try state.checkTermination()
    if let redactor {
      let rest = try redactor.finish()
      try appendRedacted(rest.span)
      if let chunkRedactor { try appendRedacted(try chunkRedactor.finish()) }
    }
    try await flush()
    if state.completeText() { deadlines?.cancel() }
  }

  // MARK: Interface for the stream run

  /// Starts the deadlines.
  ///
  /// - Parameter cancel: must make the handler return; called at most once.
  func start(cancel: @escaping () -> Void) {
    if state.isTerminating { return cancel() }
    cancelHandler = cancel
    deadlines = GenerationDeadlines(limits, of: self)
  }

  /// Requests termination from outside the handler. The first request wins.
  func terminate(_ termination: Termination) {
    guard state.terminate(termination) else { return }
    delivery.stopHeartbeats()
    cancelHandler.take()?()
  }

  /// Closes the generation after its handler has returned or thrown: cancels the deadlines and writes the terminal
  /// record.
  ///
  /// - Parameter own: the handler's termination, which applies unless another was requested first.
  /// - Returns: how the generation terminated.
  func close(_ own: Termination) async -> Termination {
    cancelHandler = nil
    deadlines?.cancel()
    let termination = state.close(own)
    return await delivery.close(termination, text: delivery.needsText ? text : "") ? termination : .disconnected
  }

  /// The beginning of the model's current silence.
  var silence: GenerationDeadlines.Silence {
    guard source != nil, !delivery.isWaitingForReader else { return .none }
    let activity = lastActivityAt ?? sourceStartedAt
    guard deltas > deltasBeforeSource || activity > sourceStartedAt else { return .sinceStart(sourceStartedAt) }
    return .since(max(delivery.lastSentAt, activity))
  }
}

extension Generation: DeliveryDelegate {
  func deliveryDidDisconnect() { terminate(.disconnected) }
  func deliveryDidBlock() { source?.wakeReader() }
}

/// The fast path: the generator's callback appends deltas directly to the delivery's buffer, while the task sleeps.
extension Generation: DeltaReceiver {
  func receive(_ delta: borrowing Span<UInt8>) -> Bool {
    guard !state.isTerminating, delivery.makeRoom(for: delta.count) else { return false }
    // A delta over a limit is queued, so that the relaying task throws the failure and closes the stream.
    do { try append(delta) } catch { return false }
    return true
  }

  func receive(_ chunk: OutputChunk) -> Bool {
    guard !state.isTerminating, delivery.makeRoom(for: chunk.byteCount) else { return false }
    do { try append(chunk) } catch { return false }
    return true
  }

  func didReceiveActivity() { lastActivityAt = reactor.now }
}
