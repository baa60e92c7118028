import Testing

@testable import EventLoop

/// A loop's decisions over many identical turns.
private final class Turns {
  private var coalescing = Coalescing(at: LoopClock.Instant(nanoseconds: 0))
  private var now: Int64 = 0

  /// Records turns of `events` events each, `microseconds` apart, and returns whether the loop sleeps afterwards.
  func record(
    _ count: Int = 200, events: Int, descriptors: Int = 1000, every microseconds: Int64
  ) -> Bool {
    for _ in 0..<count {
      now += 1000 * microseconds
      coalescing.record(events: events, descriptors: descriptors, at: LoopClock.Instant(nanoseconds: now))
    }
    return coalescing.isActive
  }
}

@Suite("Coalescing of events")
struct CoalescingTests {
  @Test("A loop sleeps while thousands of events per second arrive one by one, and no longer")
  func rates() {
    let turns = Turns()
    #expect(!turns.record(events: 1, every: 1000), "a thousand per second")
    #expect(turns.record(events: 1, every: 100), "ten thousand per second")
    // While it sleeps, several events arrive per turn.
    #expect(turns.record(events: 4, every: 400))
    #expect(turns.record(events: 1, every: 500), "two thousand per second")
    #expect(!turns.record(events: 1, every: 1000), "a thousand per second")
  }

  @Test("The first pause without events ends the sleeping, so that a later request is not delayed")
  func pause() {
    let turns = Turns()
    #expect(turns.record(events: 1, every: 100))
    #expect(!turns.record(1, events: 1, every: 3000))
  }

  @Test("A loop whose turns handle many events does not sleep")
  func batches() {
    let turns = Turns()
    #expect(!turns.record(events: 10, every: 100))
  }

  @Test("A loop with few connections does not sleep, however busy they are")
  func fewConnections() {
    let turns = Turns()
    #expect(!turns.record(events: 1, descriptors: 20, every: 20))
    #expect(turns.record(events: 1, descriptors: 200, every: 20))
    #expect(!turns.record(1, events: 1, descriptors: 20, every: 20), "most connections have closed")
  }
}
