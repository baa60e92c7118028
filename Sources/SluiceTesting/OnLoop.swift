import EventLoop

/// Runs `body` in a task on a new event loop and returns its result. The thread of the loop has exited by then.
///
/// - Parameter clock: the loop's clock; that of a ``ManualClock`` for tests that control the time.
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

/// A clock that stands still until a test advances it.
package final class ManualClock: Sendable {
  private let instant = Locked(LoopClock.continuous.now)

  package init() {}

  package var loopClock: LoopClock { LoopClock { self.instant.withLock { $0 } } }

  /// Advances the time, and waits until the loop has handled the change. Call it in a task on the loop with this clock.
  package func advance(by duration: Duration, on reactor: Reactor) async {
    instant.withLock { $0 += duration }
    await reactor.nextTurn()
  }
}

/// A clock that runs a hundred times slower than the machine's, so that a busy machine does not let long times pass, and
/// that a test can advance.
package final class SlowClock: Sendable {
  private let start = LoopClock.continuous.now
  private let added = Locked(Duration.zero)

  package init() {}

  package var loopClock: LoopClock {
    LoopClock { self.start + (LoopClock.continuous.now - self.start) / 100 + self.added.withLock { $0 } }
  }

  package func advance(by duration: Duration) { added.withLock { $0 += duration } }
}

extension Reactor {
  /// Waits until the loop has handled everything currently pending, including timers that are due.
  package func nextTurn() async {
    let waiter = Waiter()
    let loop = loop
    // Safe: the waiter is woken on the loop to which it belongs.
    let bound = unsafe LoopBound(waiter)
    for _ in 0..<3 {
      // The timer fires after the descriptors of one turn. Its call then wakes this task behind those that the turn
      // woke.
      let timer = schedule(after: .zero) { loop.execute { _ in bound.value.wake() } }
      await waiter.wait()
      timer.cancel()
    }
  }
}

/// Returns whether `condition` becomes true within `limit`. Checks it every 5 ms.
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
