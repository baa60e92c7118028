import EventLoop
import FastCGI
import Synchronization

/// One reader of a transcript: passes the deltas on to a delivery, from any delta on, and then the terminal record.
///
/// Belongs to its loop, which need not be that of the generation.
final class TranscriptReader: DeliveryDelegate {
  private let transcript: Transcript
  private let handle: TranscriptReaderHandle
  private let delivery: any Delivery
  private let reactor: Reactor
  /// The number of deltas that the client already has.
  private let start: Int
  private var position = Transcript.Position()
  private var hasBegun = false
  private var isDisconnected: Bool
  /// Whether deltas have to wait until this reader's task has flushed the delivery.
  private var mustFlush = false
  private let waiter = Waiter()
  private var countedBytes = 0

  /// The maximum number of deltas to skip at once, so that the loop's other streams are not delayed.
  private static let maximumSkippedDeltas = 1000

  /// Creates a reader for a handle that is attached to `transcript`, and delivers in a task of its own.
  ///
  /// - Parameters:
  ///   - start: the number of deltas that the client already has.
  ///   - onEnd: called with the number of bytes sent when the reader has left.
  static func start(
    _ handle: TranscriptReaderHandle, of transcript: Transcript, after start: Int, to delivery: any Delivery,
    on reactor: Reactor, onEnd: @escaping (_ sentBytes: Int) -> Void
  ) {
    let reader = TranscriptReader(handle, transcript, start, delivery, reactor)
    handle.setReader(reader)
    reactor.spawn {
      await reader.run()
      handle.setReader(nil)
      transcript.detach(handle)
      onEnd(delivery.sentBytes)
    }
  }

  private init(
    _ handle: TranscriptReaderHandle, _ transcript: Transcript, _ start: Int, _ delivery: any Delivery,
    _ reactor: Reactor
  ) {
    self.handle = handle
    self.transcript = transcript
    self.start = start
    self.delivery = delivery
    self.reactor = reactor
    isDisconnected = delivery.isReaderDisconnected
    delivery.delegate = self
  }

  deinit { delivery.delegate = nil }

  private func run() async {
    await skip()
    while !isDisconnected {
      pump()
      if mustFlush {
        do throws(WriteError) { try await flush() } catch { break }
      } else if let termination = transcript.termination(at: position) {
        _ = await delivery.close(termination, text: delivery.needsText ? transcript.text : "")
        return countSentBytes()
      } else if !isDisconnected {
        await waiter.wait()
      }
    }
    _ = await delivery.close(.disconnected, text: "")
    countSentBytes()
  }

  /// Advances the dialect to the delta at which this reader starts.
  private func skip() async {
    while position.deltas < start {
      let end = min(start, position.deltas + Self.maximumSkippedDeltas)
      while position.deltas < end,
        transcript.readDelta(at: &position, onText: { delivery.skip($0) }, onChunk: { delivery.skip($0) })
      {}
      await Task.yield()
    }
  }

  /// Passes on the deltas that are available, as far as that is possible without waiting. Called by the transcript too.
  func pump() {
    guard position.deltas >= start, !mustFlush, !isDisconnected else { return }
    if !hasBegun, transcript.hasBegun {
      hasBegun = true
      delivery.begin()
      // Sends the head, unless a delta is sent with it.
      if transcript.nextDeltaBytes(at: position) == nil { needFlush() }
    }
    while let bytes = transcript.nextDeltaBytes(at: position) {
      guard delivery.makeRoom(for: bytes) else { return needFlush() }
      passOnDelta()
    }
    countSentBytes()
    if transcript.hasEnded { waiter.wake() }
  }

  private func passOnDelta() {
    transcript.readDelta(at: &position, onText: { delivery.append($0) }, onChunk: { delivery.append($0) })
  }

  private func needFlush() {
    mustFlush = true
    waiter.wake()
  }

  private func flush() async throws(WriteError) {
    try await delivery.flush()
    // A delta that is larger than a write never finds room.
    if !delivery.makeRoom(for: transcript.nextDeltaBytes(at: position) ?? 0) {
      passOnDelta()
      try await delivery.flush()
    }
    // The loop's other streams run while this one catches up.
    await Task.yield()
    mustFlush = false
  }

  private func countSentBytes() {
    let sent = delivery.sentBytes
    transcript.addSentBytes(sent - exchange(&countedBytes, with: sent))
  }

  func stopHeartbeats() { delivery.stopHeartbeats() }

  func deliveryDidDisconnect() {
    isDisconnected = true
    waiter.wake()
  }

  func deliveryDidBlock() { needFlush() }
}

/// A reader as other loops see it. Thread-safe.
final class TranscriptReaderHandle: Sendable {
  private let loop: EventLoop
  /// The reader, which is set and used only on its own loop.
  private nonisolated(unsafe) var reader: TranscriptReader?
  private let isNotified = Atomic(false)

  init(on loop: EventLoop) { self.loop = loop }

  /// Sets the reader, on its loop, or removes it. The reader is released with its task.
  func setReader(_ reader: TranscriptReader?) { unsafe self.reader = reader }

  /// Makes the reader pass on what is new: at once on its own loop, otherwise soon.
  func notify() {
    if loop.isCurrent {
      unsafe reader?.pump()
    } else if !isNotified.exchange(true, ordering: .acquiringAndReleasing) {
      loop.execute { [self] _ in
        isNotified.store(false, ordering: .releasing)
        unsafe reader?.pump()
      }
    }
  }

  /// Stops the heartbeats of the reader: at once on its own loop, otherwise soon.
  func stopHeartbeats() {
    if loop.isCurrent {
      unsafe reader?.stopHeartbeats()
    } else {
      loop.execute { [self] _ in unsafe reader?.stopHeartbeats() }
    }
  }
}
