import EventLoop
import FastCGI
import Upstream

/// The delivery of a generation to any number of readers, each at its own pace: it appends the deltas to a transcript and
/// notifies the readers.
///
/// Without a reader it waits for one to come back, within the grace period. A slow reader delays neither the generation
/// nor another reader.
final class TranscriptDelivery: Delivery, Flushable {
  let needsText = false
  let isWaitingForReader = false
  let isReaderDisconnected = false
  private(set) var lastSentAt: LoopClock.Instant
  unowned var delegate: (any DeliveryDelegate)?

  private let transcript: Transcript
  private let registry: TranscriptRegistry
  private let reactor: Reactor
  /// The time for which the generation continues without a reader, and can be read after its end.
  private let gracePeriod: Duration
  private var graceTimer: Timer?
  private let descriptors: DescriptorBudget
  /// The unit of the connection to the model while there is no client, whose connection holds one otherwise.
  private var graceUnit: DescriptorUnit?
  private let reference = Reference()
  private var isFlushScheduled = false
  /// The number of bytes appended since the loop last handled other events.
  private var bytesInEvent = 0

  /// The maximum number of bytes per event, so that a generator that never waits does not keep the loop from its other
  /// streams.
  private static let maximumBytesInEvent = 128 * 1024

  /// Creates a delivery, and adds its transcript to `registry`. The first reader must already be attached.
  init(
    _ transcript: Transcript, gracePeriod: Duration, in registry: TranscriptRegistry, _ descriptors: DescriptorBudget,
    on reactor: Reactor
  ) {
    self.transcript = transcript
    self.descriptors = descriptors
    self.registry = registry
    self.reactor = reactor
    self.gracePeriod = gracePeriod
    lastSentAt = reactor.now
    registry.add(transcript)
    unsafe reference.delivery = self
    transcript.setUnreadHandler { [loop = reactor.loop, reference] departure in
      loop.execute { _ in unsafe reference.delivery?.startGracePeriod(after: departure) }
    }
  }

  /// A reference to an open delivery, set and used only on its loop.
  private final class Reference: Sendable {
    nonisolated(unsafe) var delivery: TranscriptDelivery?
  }

  var sentBytes: Int { transcript.sentBytes }

  func begin() {
    transcript.begin()
    scheduleFlush()
  }

  func makeRoom(for bytes: Int) -> Bool { bytesInEvent + bytes <= Self.maximumBytesInEvent }

  func append(_ delta: borrowing Span<UInt8>) {
    transcript.append(delta)
    didAppend(delta.count)
  }

  func append(_ chunk: OutputChunk) {
    transcript.append(chunk)
    didAppend(chunk.byteCount)
  }

  private func didAppend(_ bytes: Int) {
    bytesInEvent += bytes
    lastSentAt = reactor.now
    scheduleFlush()
  }

  /// Does nothing: a generation sends all of its deltas. Its readers skip.
  func skip(_ delta: borrowing Span<UInt8>) {}

  func skip(_ chunk: OutputChunk) {}

  private func scheduleFlush() {
    guard !isFlushScheduled else { return }
    isFlushScheduled = true
    reactor.scheduleFlush(self)
  }

  func flushPending() {
    bytesInEvent = 0
    notifyIfNeeded()
  }

  private func notifyIfNeeded() {
    if exchange(&isFlushScheduled, with: false) { notifyReaders() }
  }

  func flush() async throws(WriteError) {
    notifyIfNeeded()
    // The generation does not wait for its readers, but for the other streams of the loop.
    if bytesInEvent > Self.maximumBytesInEvent / 2 {
      await Task.yield()
      bytesInEvent = 0
    }
  }

  private func notifyReaders() {
    for reader in transcript.readers { reader.notify() }
  }

  func stopHeartbeats() {
    for reader in transcript.readers { reader.stopHeartbeats() }
  }

  func close(_ termination: Termination, text: String) async -> Bool {
    graceTimer?.cancel()
    graceUnit = nil
    transcript.setUnreadHandler(nil)
    unsafe reference.delivery = nil
    transcript.end(termination)
    notifyReaders()
    // Lets the readers on this loop finish, so that their bytes are counted.
    await Task.yield()
    if case .disconnected = termination {
      registry.remove(transcript.id)
    } else {
      _ = reactor.schedule(after: gracePeriod) { [registry, id = transcript.id] in registry.remove(id) }
    }
    return true
  }

  /// - Parameter departure: the last reader's; see ``Transcript/forgetIfUnread(since:)``.
  private func startGracePeriod(after departure: Int) {
    guard !transcript.hasEnded else { return }
    graceTimer?.cancel()
    graceUnit = nil
    graceUnit = descriptors.acquireUnit()
    // Without a descriptor to spare, the model's is not kept for a client that may not come back.
    graceTimer = reactor.schedule(after: graceUnit == nil ? .zero : gracePeriod) { [unowned self] in
      if transcript.forgetIfUnread(since: departure) { delegate?.deliveryDidDisconnect() }
    }
  }
}
