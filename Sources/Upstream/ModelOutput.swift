import Bytes
import EventLoop

/// Receives deltas synchronously, without waking a task.
package protocol DeltaReceiver: AnyObject {
  /// Handles a delta. Returns false if the delta must wait: it and all later ones are then delivered through
  /// ``ModelOutput/next()`` until the reader has caught up.
  ///
  /// - Parameter delta: text in UTF-8, never empty. Valid only during the call.
  func receive(_ delta: borrowing Span<UInt8>) -> Bool

  /// Handles a delta that is more than text, like ``receive(_:)-(Span<UInt8>)``.
  func receive(_ chunk: OutputChunk) -> Bool

  /// Called when the source is active without producing output.
  func didReceiveActivity()
}

/// The channel from a generator to its consumer, on one loop.
///
/// It buffers little: if the reader is slow, ``isFull`` makes the generator pause its source until ``onDrain`` is
/// called.
package final class ModelOutput {
  package enum Event: Sendable, Equatable {
    /// A delta of the text. Empty only to make a reader with a ``receiver`` flush.
    case delta(String)
    /// A delta that is more than text.
    case chunk(OutputChunk)
    /// The text is complete. This is the last event.
    case completed(Completion)
  }

  private let events = Mailbox<Result<Event, GeneratorError>>()
  private let acceptance = Waiter()
  private var isAccepted = false
  package private(set) var isFinished = false
  /// The number of events in ``events``. Read for every delta, so it is stored here.
  private var queuedEvents = 0
  private(set) var queuedBytes = 0
  private var shouldCallDrain = false

  /// The number of queued bytes at which the source should pause.
  private static let maximumQueuedBytes = 64 * 1024

  package init() {}

  // MARK: Generator

  /// The error to report if the source is still waiting for capacity when the first-token timeout expires; nil if it
  /// is not waiting.
  package var refusalWhileWaiting: GeneratorError?

  /// Called once if the consumer cancels early; the generator must release its source.
  package var onCancel: (() -> Void)?

  /// Called when the queue has room again after ``isFull`` was true.
  package var onDrain: (() -> Void)?

  /// Whether the source should pause. Reading true arms ``onDrain``.
  package var isFull: Bool {
    guard queuedBytes >= Self.maximumQueuedBytes else { return false }
    shouldCallDrain = true
    return true
  }

  /// Declares that the source has accepted the request and will respond. Every event implies it.
  package func accept() {
    isAccepted = true
    acceptance.wake()
  }

  /// Emits a delta: directly to the ``receiver`` if it can handle it, otherwise through the queue.
  package func yield(_ text: String) { yield(text.utf8Span.span) }

  /// Emits a delta in UTF-8. No string is created if the ``receiver`` handles it.
  package func yield(_ text: borrowing Span<UInt8>) {
    guard !isFinished, text.count > 0 else { return }
    if queuedEvents == 0, let receiver, receiver.receive(text) { return }
    queuedBytes += text.count
    post(.success(.delta(String(decodingUTF8: text))))
  }

  /// Emits a delta that is more than text.
  package func yield(_ chunk: OutputChunk) {
    guard !isFinished, !chunk.isEmpty else { return }
    if queuedEvents == 0, let receiver, receiver.receive(chunk) { return }
    queuedBytes += chunk.byteCount
    post(.success(.chunk(chunk)))
  }

  /// Reports that the source is active although it has no output. Counts as output for the first-token and idle
  /// deadlines.
  package func noteActivity() { receiver?.didReceiveActivity() }

  package func finish(_ completion: Completion) { finish(with: .success(.completed(completion))) }

  package func fail(_ error: GeneratorError) { finish(with: .failure(error)) }

  private func finish(with event: Result<Event, GeneratorError>) {
    guard !isFinished else { return }
    isFinished = true
    receiver = nil
    onCancel = nil
    onDrain = nil
    post(event)
  }

  private func post(_ event: Result<Event, GeneratorError>) {
    queuedEvents += 1
    events.post(event)
    if !isAccepted { accept() }
  }

  // MARK: Consumer

  /// The fast path for deltas, used while it can handle them, without waking a task for each. Retained until the output
  /// is finished.
  package var receiver: (any DeltaReceiver)?

  /// Wakes the reader with an empty delta, to flush the output that ``receiver`` could not send at once.
  package func wakeReader() {
    guard !isFinished, queuedEvents == 0 else { return }
    post(.success(.delta("")))
  }

  /// Waits until the source has accepted the request.
  ///
  /// - Throws: the error with which the source refused, or ``GeneratorError/Code/cancelled``.
  package func waitUntilAccepted() async throws(GeneratorError) {
    while !isAccepted { await acceptance.wait() }
    // A refusal is the first event in the queue.
    if let refusal { throw refusal }
  }

  /// Whether ``next()`` returns without waiting.
  package var hasQueuedEvents: Bool { queuedEvents > 0 }

  /// Waits for the next event and returns it.
  ///
  /// - Throws: the error of a failed output, after all deltas that preceded it, or ``GeneratorError/Code/cancelled``.
  package func next() async throws(GeneratorError) -> Event {
    resumeSource()
    return try dequeued(await events.next())
  }

  /// Returns the next event if it is already queued, otherwise nil.
  package func nextReady() throws(GeneratorError) -> Event? {
    resumeSource()
    guard let event = events.nextReady() else { return nil }
    return try dequeued(event)
  }

  /// Cancels the output: terminates the upstream transfer and a pending wait for the next event. Has no effect after
  /// the last event. Cancelling the waiting task does not call this; see ``EventLoop/Reactor/onCancel(_:while:)``.
  package func cancel() {
    let release = onCancel
    finish(with: .failure(.cancelled))
    release?()
  }

  private var refusal: GeneratorError? {
    guard case .failure(let error)? = events.first else { return nil }
    return error
  }

  private func dequeued(_ event: Result<Event, GeneratorError>) throws(GeneratorError) -> Event {
    queuedEvents -= 1
    switch event {
    case .success(.delta(let text)): queuedBytes -= text.utf8.count
    case .success(.chunk(let chunk)): queuedBytes -= chunk.byteCount
    case .success(.completed), .failure: break
    }
    return try event.get()
  }

  /// Resumes the source if there is room again. Called before an event is dequeued, when the reader has processed the
  /// previous one: the source can yield at once, and its deltas must not overtake one that is still being processed.
  private func resumeSource() {
    guard shouldCallDrain, queuedBytes < Self.maximumQueuedBytes / 2 else { return }
    shouldCallDrain = false
    onDrain?()
  }
}
