import EventLoop

/// Runs `body` in a task on an event loop of its own, whose thread is gone when this returns.
///
/// - Parameter clock: the loop's time; a ``ManualClock``'s for tests in which time is stepped.
package func onLoop<Success: Sendable>(
  clock: LoopClock = .continuous, _ body: @escaping @Sendable (Reactor) async throws -> Success
) async throws -> Success {
  let thread = try LoopThread(EventLoop(name: "test", clock: clock))
  let result: Result<Success, any Error> = await withCheckedContinuation { continuation in
    thread.loop.execute { reactor in
      reactor.spawn {
        do {
          continuation.resume(returning: .success(try await body(reactor)))
        } catch {
          continuation.resume(returning: .failure(error))
        }
      }
    }
  }
  thread.stop()
  return try result.get()
}

/// A clock that stands still until a test steps it.
package final class ManualClock: Sendable {
  private let instant = Locked(LoopClock.continuous.now)

  package init() {}

  package var loopClock: LoopClock { LoopClock { self.instant.withLock { $0 } } }

  /// Moves the time on, and lets the loop see it. Call it on the loop that has this clock, from a task.
  package func advance(by duration: Duration, on reactor: Reactor) async {
    instant.withLock { $0 += duration }
    await reactor.nextTurn()
  }
}

extension Reactor {
  /// Waits until the loop has handled everything that is there now, timers that are due included.
  package func nextTurn() async {
    let waiter = Waiter()
    let loop = loop
    // Safe: the waiter is woken on the loop to which it belongs.
    let bound = unsafe LoopBound(waiter)
    for _ in 0..<3 {
      // Behind one turn of the descriptors and timers, then behind the tasks that it woke.
      let timer = schedule(after: .zero) { loop.execute { _ in bound.value.wake() } }
      await waiter.wait()
      timer.cancel()
    }
  }
}

/// Waits until `condition` holds, looking often, for at most `limit`. False when it never did.
package func eventually(within limit: Duration = .seconds(10), _ condition: () async throws -> Bool) async rethrows
  -> Bool
{
  let end = ContinuousClock.now + limit
  while ContinuousClock.now < end {
    if try await condition() { return true }
    try? await Task.sleep(for: .milliseconds(5))
  }
  return try await condition()
}
