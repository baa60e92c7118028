import EventLoop

/// Someone to whom an answer can speak directly.
package protocol DeltaReceiver: AnyObject {
  /// Takes a delta. False when it has to wait: the delta comes by ``ModelOutput/next()`` then, as do all after it until
  /// the reader has caught up.
  func receive(_ delta: String) -> Bool

  /// Called when the source works without having text.
  func didReceiveActivity()
}

/// An answer on its way: what a generator puts in at one end, a stream takes out at the other. Belongs to its loop.
///
/// It holds little: when the reader is slow, ``isFull`` tells the generator to pause its source until ``onDrain`` is
/// called.
package final class ModelOutput {
  package enum Event: Sendable, Equatable {
    /// A piece of the text. Never empty, except where a reader with a ``receiver`` is to flush.
    case delta(String)
    /// The text is complete. The last event.
    case completed(Completion)
  }

  private let events = Mailbox<Result<Event, GeneratorError>>()
  private let acceptance = Waiter()
  private var isAccepted = false
  package private(set) var isFinished = false
  private(set) var queuedBytes = 0
  private var shouldCallDrain = false

  /// The most that waits for the reader before the source is to pause.
  private static let maximumQueuedBytes = 64 * 1024

  package init() {}

  // MARK: The generator's end

  /// Called once, when the reader has lost interest before the answer was over: the source is to be let go.
  package var onCancel: (() -> Void)?

  /// Called when there is room again after ``isFull`` was true.
  package var onDrain: (() -> Void)?

  /// Whether the source should pause. A generator that asks and is told so is called back through ``onDrain``.
  package var isFull: Bool {
    guard queuedBytes >= Self.maximumQueuedBytes else { return false }
    shouldCallDrain = true
    return true
  }

  /// The source has taken the question and will answer. Implied by everything that follows.
  package func accept() {
    isAccepted = true
    acceptance.wake()
  }

  /// Says a piece of the text: to the ``receiver`` at once if it takes it, else it waits in the queue.
  package func yield(_ text: String) {
    guard !isFinished, !text.isEmpty else { return }
    if let receiver, events.count == 0, receiver.receive(text) { return }
    queuedBytes += text.utf8.count
    post(.success(.delta(text)))
  }

  /// Reports that the source works though it has no text: a model that reasons is not silent. Time limits count it.
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
    events.post(event)
    if !isAccepted { accept() }
  }

  // MARK: The reader's end

  /// Takes deltas without a task having to be woken for each: the fast way, for as long as it can take them. Kept
  /// until the answer is over.
  package var receiver: (any DeltaReceiver)?

  /// Wakes the reader, which gets an empty delta, to flush what ``receiver`` could not send at once.
  package func wakeReader() {
    guard !isFinished, events.count == 0 else { return }
    events.post(.success(.delta("")))
  }

  /// Waits until the source has accepted.
  ///
  /// - Throws: what it refused with, or ``GeneratorError/Code/cancelled``.
  package func waitUntilAccepted() async throws(GeneratorError) {
    while !isAccepted { await acceptance.wait() }
    // What is there already tells whether it was accepted or refused.
    if let refusal { throw refusal }
  }

  /// The next event, as soon as there is one.
  ///
  /// - Throws: what the answer failed with, after all deltas that came before, or ``GeneratorError/Code/cancelled``.
  package func next() async throws(GeneratorError) -> Event {
    resumeSource()
    return try dequeued(await events.next())
  }

  /// The next event if it is there already.
  package func nextReady() throws(GeneratorError) -> Event? {
    resumeSource()
    guard let event = events.nextReady() else { return nil }
    return try dequeued(event)
  }

  /// Lets the answer go: an upstream transfer ends at once, and a wait for the next event too. After the end it does
  /// nothing. The cancellation of a waiting task is not noticed by itself: see ``EventLoop/Reactor/onCancel(_:while:)``.
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
    if case .success(.delta(let text)) = event {
      queuedBytes -= text.utf8.count
    }
    return try event.get()
  }

  /// Lets the source go on when there is room again. Called before an event is taken, when the reader has done with the
  /// one before: a source may post at once, and what it posts must not overtake what the reader still holds.
  private func resumeSource() {
    guard shouldCallDrain, queuedBytes < Self.maximumQueuedBytes / 2 else { return }
    shouldCallDrain = false
    onDrain?()
  }
}
