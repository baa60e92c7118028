import EventLoop
import SluiceTesting
import Testing

@testable import Sluice

@Suite("Watchdog")
struct WatchdogTests {
  @Test("The watchdog detects that a loop is stalled, and that it has recovered")
  func standstill() async throws {
    let (one, two) = (try LoopThread(EventLoop(name: "one")), try LoopThread(EventLoop(name: "two")))
    defer {
      one.stop()
      two.stop()
    }
    let watchdog = Watchdog([one.loop, two.loop])
    /// Returns whether a beat finds all loops alive, after every loop that is not blocked has had a turn.
    func isAlive() async -> Bool {
      for loop in [one.loop, two.loop] where loop !== blockedLoop { await turn(loop) }
      return watchdog.beat()
    }
    var blockedLoop: EventLoop?
    #expect(watchdog.beat())
    #expect(await isAlive())
    let gate = Gate()
    two.loop.execute { _ in gate.pass() }
    blockedLoop = two.loop
    _ = await isAlive()
    #expect(await !isAlive())
    #expect(await !isAlive())
    gate.open()
    blockedLoop = nil
    await turn(two.loop)
    #expect(await isAlive())
  }

  private func turn(_ loop: EventLoop) async {
    await withCheckedContinuation { continuation in loop.execute { _ in continuation.resume() } }
  }
}
