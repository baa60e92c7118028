import EventLoop
import SluiceTesting
import Testing

@Suite("Timers")
struct TimerTests {
  @Test("Timers fire in the order of their deadlines, regardless of the order of their creation")
  func order() async throws {
    let clock = ManualClock()
    let fired = try await onLoop(clock: clock.loopClock) { reactor -> [Int] in
      var fired: [Int] = []
      for milliseconds in [50, 10, 40, 20, 30, 10] {
        _ = reactor.schedule(after: .milliseconds(milliseconds)) { fired.append(milliseconds) }
      }
      await clock.advance(by: .milliseconds(35), on: reactor)
      let early = fired
      await clock.advance(by: .milliseconds(35), on: reactor)
      return early + [0] + fired.dropFirst(early.count)
    }
    #expect(fired == [10, 10, 20, 30, 0, 40, 50])
  }

  @Test("Cancelled timers leave the heap immediately and never fire, in any order of cancellation", arguments: 0..<20)
  func cancelling(seed: Int) async throws {
    let clock = ManualClock()
    let (left, fired) = try await onLoop(clock: clock.loopClock) { reactor -> (Int, [Int]) in
      var fired: [Int] = []
      var random = SeededGenerator(seed: UInt64(seed))
      var timers = (0..<100).map { index in
        reactor.schedule(after: .milliseconds(Int.random(in: 1...500, using: &random))) { fired.append(index) }
      }
      timers.shuffle(using: &random)
      for timer in timers.prefix(97) { timer.cancel() }
      let left = reactor.pendingTimers
      await clock.advance(by: .seconds(1), on: reactor)
      return (left, fired)
    }
    #expect(left == 3, "seed \(seed)")
    #expect(fired.count == 3, "seed \(seed)")
  }

  @Test("A timer's handler can schedule another timer")
  func nesting() async throws {
    let clock = ManualClock()
    let count = try await onLoop(clock: clock.loopClock) { reactor -> Int in
      var count = 0
      func again() {
        count += 1
        if count < 5 { _ = reactor.schedule(after: .seconds(1)) { again() } }
      }
      again()
      for _ in 0..<10 { await clock.advance(by: .seconds(1), on: reactor) }
      return count
    }
    #expect(count == 5)
  }
}

@Suite("Tasks on a loop")
struct TaskTests {
  @Test("A task stays on its loop's thread across every suspension")
  func affinity() async throws {
    let pool = BlockingPool()
    let isOnLoop = try await onLoop { reactor -> [Bool] in
      var isOnLoop = [reactor.loop.isCurrent]
      _ = await pool.run { 1 }
      isOnLoop.append(reactor.loop.isCurrent)
      try await Task.sleep(for: .milliseconds(1))
      isOnLoop.append(reactor.loop.isCurrent)
      try await reactor.sleep(for: .milliseconds(1))
      isOnLoop.append(reactor.loop.isCurrent)
      return isOnLoop
    }
    #expect(isOnLoop == [true, true, true, true])
  }

  @Test("Cancellation wakes a waiting task once, before or during the wait")
  func cancellation() async throws {
    for early in [true, false] {
      let wasCancelled = try await onLoop { reactor -> Bool in
        let done = Waiter()
        var wasCancelled = false
        let task = reactor.spawn {
          do { try await reactor.sleep(for: .seconds(100)) } catch { wasCancelled = true }
          done.wake()
        }
        if !early { await reactor.nextTurn() }
        task.cancel()
        await done.wait()
        return wasCancelled
      }
      #expect(wasCancelled, "cancelled before the wait: \(early)")
    }
  }

  @Test("A mailbox delivers every element in order")
  func mailbox() async throws {
    let received = try await onLoop { reactor -> [Int] in
      let mailbox = Mailbox<Int>()
      reactor.spawn {
        for number in 0..<1000 {
          mailbox.post(number)
          if number % 7 == 0 { try? await reactor.sleep(for: .zero) }
        }
      }
      var received: [Int] = []
      while received.count < 1000 { received.append(await mailbox.next()) }
      return received
    }
    #expect(received == Array(0..<1000))
  }

  @Test("A loop runs every closure that other threads deliver, whether it is idle or busy")
  func deliveries() async throws {
    let total = try await onLoop { reactor -> Int in
      let waiter = Waiter()
      let counter = unsafe LoopBound(Counter())
      let loop = reactor.loop
      for _ in 0..<4 {
        try JoinableThread(name: "deliverer") {
          for _ in 0..<2500 { loop.execute { _ in counter.value.count += 1 } }
        }.detach()
      }
      while counter.value.count < 10_000 {
        let timer = reactor.schedule(after: .milliseconds(1)) { waiter.wake() }
        await waiter.wait()
        timer.cancel()
      }
      return counter.value.count
    }
    #expect(total == 10_000)
  }

  private final class Counter { var count = 0 }
}

@Suite("Blocking pool")
struct BlockingPoolTests {
  @Test("A hundred blocked jobs do not delay another job")
  func growth() async throws {
    let pool = BlockingPool()
    let gate = Gate()
    for _ in 0..<100 { pool.submit { gate.pass() } }
    // The gate opens only after this job has returned; a job that waited for the others would hang the test.
    #expect(await pool.run { 1 } == 1)
    gate.open()
  }

  @Test("An error thrown by a job reaches its caller")
  func errors() async {
    let pool = BlockingPool()
    await #expect(throws: SystemError("work", code: 5)) {
      try await pool.run { () throws(SystemError) in throw SystemError("work", code: 5) }
    }
  }
}
