import EventLoop
import FastCGI
import Upstream

/// One run of a generator, or of a handler, for one request: deltas in, redacted text out to a delivery, one termination.
///
/// It knows no wire format. Belongs to its loop: the compiler keeps it in the task of the request.
final class Generation {
  /// What a generation needs to know of its request.
  struct Options {
    /// Whether ``text`` is wanted; of a generation that is not stored it need not grow.
    var retainsText = true
    /// Takes out what nobody may see, before anything else is done with the text.
    var redactor: Redactor?
  }

  /// The id of the stream (a UUIDv7), which the client gets as `Sluice-Stream-Id`.
  let id: String
  /// The id of the stored message; differs from ``id`` only when a stored response is replayed.
  let messageID: String
  let reactor: Reactor
  /// The text so far, redacted, where it is retained.
  private(set) var text = ""

  // For the log and the metrics.
  let startedAt: LoopClock.Instant
  private(set) var firstDeltaAt: LoopClock.Instant?
  private(set) var deltas = 0
  private(set) var textBytes = 0
  var sentBytes: Int { delivery.sentBytes }

  private let delivery: any Delivery
  private let retainsText: Bool
  private let redactor: Redactor?
  private let limits: GenerationLimits
  private var deadlines: GenerationDeadlines?
  private var state = GenerationState()
  /// When the model last sent something that need not have led to output: text that was withheld, reasoning.
  private var lastActivityAt: LoopClock.Instant?
  private var cancelHandler: (() -> Void)?
  /// How the output that was relayed last was completed.
  private(set) var relayedCompletion: Completion?
  /// The output that is being relayed: its reader is woken for what could not be sent at once.
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
    retainsText = options.retainsText || delivery.needsText
    self.limits = limits
    redactor = options.redactor
    startedAt = reactor.now
    sourceStartedAt = reactor.now
    delivery.delegate = self
    if delivery.isReaderDisconnected { terminate(.disconnected) }
  }

  deinit { delivery.delegate = nil }

  /// The rules in force when the generation started. What is made of its text is redacted by the same.
  var redactionRules: [RedactionRules.Rule] { redactor?.rules ?? [] }

  /// Whether the handler's result is made of complete text.
  var isTextComplete: Bool { state.isTextComplete }

  // MARK: For the handler

  /// Lets the handler go on, or observe that it must not.
  func checkTermination() throws(StreamClosedError) { try state.checkTermination() }

  /// Notes how an output was completed, for a handler that makes no result of its own. Not in the relay, whose frame every
  /// stream has.
  func didRelay(_ completion: Completion) { relayedCompletion = completion }

  /// Sends a delta, and the head before the first one. Returns when the web server has it.
  func send(_ delta: String) async throws {
    try append(delta)
    try await flush()
  }

  /// Sends the head now instead of with the first delta.
  func open() async throws {
    try checkTermination()
    delivery.begin()
    try await flush()
  }

  /// Appends a delta to what the next ``flush()`` sends, less what the redactor takes out or withholds.
  func append(_ delta: String) throws {
    try state.checkTermination()
    if let redactor {
      lastActivityAt = reactor.now
      try appendRedacted(redactor.feed(delta))
    } else {
      try appendRedacted(delta)
    }
  }

  private func appendRedacted(_ delta: String) throws {
    guard !delta.isEmpty else { return }
    deltas += 1
    textBytes += delta.utf8.count
    guard textBytes <= limits.maximumTextBytes else {
      throw Failure(.upstreamError, "The response exceeds the limit of \(limits.maximumTextBytes) bytes.")
    }
    if firstDeltaAt == nil { firstDeltaAt = reactor.now }
    if retainsText { text += delta }
    delivery.append(delta)
  }

  /// Sends what was appended, waiting for the reader as long as its slowness is allowed.
  func flush() async throws {
    do throws(WriteError) { try await delivery.flush() } catch { terminate(.disconnected) }
    try state.checkTermination()
  }

  /// Sends the text withheld as a possible match; no more follows. Storing the result is not subject to the deadlines.
  ///
  /// - Throws: ``StreamClosedError`` when the generation has to terminate before that.
  func finishText() async throws {
    if state.isTextComplete { return }
    try state.checkTermination()
    if let redactor { try appendRedacted(redactor.finish()) }
    try await flush()
    if state.completeText() { deadlines?.cancel() }
  }

  // MARK: For the one who runs it

  /// Starts the clocks.
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

  /// Closes the generation once its handler has returned or thrown: the terminal record is written, no timer is left.
  ///
  /// - Parameter own: the handler's reason, which counts unless another came before.
  /// - Returns: how it terminated.
  func close(_ own: Termination) async -> Termination {
    cancelHandler = nil
    deadlines?.cancel()
    let termination = state.close(own)
    return await delivery.close(termination, text: text) ? termination : .disconnected
  }

  /// Since when the model has been silent.
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

/// The fast path: deltas from the generator's callback straight into the delivery's buffer, while the task sleeps.
extension Generation: DeltaReceiver {
  func receive(_ delta: String) -> Bool {
    guard !state.isTerminating, delivery.canTake(delta.utf8.count) else { return false }
    // A delta over a limit is queued, so that the relaying task throws the failure and closes the stream.
    guard (try? append(delta)) != nil else { return false }
    delivery.scheduleFlush()
    return true
  }

  func didReceiveActivity() { lastActivityAt = reactor.now }
}
