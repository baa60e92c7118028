import EventLoop
import SluiceTesting
import Testing

@Suite("Timers")
struct TimerTests {
  @Test("fire in the order of their deadlines, whatever the order in which they were made")
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

  @Test("that are cancelled leave the heap at once and never fire, in any order of cancelling", arguments: 0..<20)
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

  @Test("may be made by the handler of another")
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
  @Test("stay on its thread across every suspension")
  func affinity() async throws {
    let pool = BlockingPool()
    let answers = try await onLoop { reactor -> [Bool] in
      var answers = [reactor.loop.isCurrent]
      _ = await pool.run { 1 }
      answers.append(reactor.loop.isCurrent)
      try await Task.sleep(for: .milliseconds(1))
      answers.append(reactor.loop.isCurrent)
      try await reactor.sleep(for: .milliseconds(1))
      answers.append(reactor.loop.isCurrent)
      return answers
    }
    #expect(answers == [true, true, true, true])
  }

  @Test("that wait are woken by a cancellation, once, before or during the wait")
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

  @Test("hand each other elements in order, none lost")
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

  @Test("get what other threads deliver, in any number, while the loop sleeps and while it runs")
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

@Suite("The pool of blocking threads")
struct BlockingPoolTests {
  @Test("does not let a hundred that block delay another")
  func growth() async throws {
    let pool = BlockingPool()
    let gate = Gate()
    for _ in 0..<100 { pool.submit { gate.pass() } }
    // They are let go behind it: were it to wait for them, this would never end.
    #expect(await pool.run { 1 } == 1)
    gate.open()
  }

  @Test("passes on what its work throws")
  func errors() async {
    let pool = BlockingPool()
    await #expect(throws: SystemError("work", code: 5)) {
      try await pool.run { () throws(SystemError) in throw SystemError("work", code: 5) }
    }
  }
}
