import Testing
@testable import EventLoop

@Test func pingPong() async throws {
  let loop = try EventLoop()
  let thread = try LoopThread(loop)
  let pool = BlockingPool()
  await withCheckedContinuation { (c: CheckedContinuation<Void, Never>) in
    loop.execute { reactor in
      reactor.spawn {
        let a = Mailbox<Int>(reactor), b = Mailbox<Int>(reactor)
        reactor.spawn { while let x = try? await a.next() { if x < 0 { return }; b.post(x) } }
        let start = ContinuousClock.now
        for i in 0..<200_000 { a.post(i); _ = try? await b.next() }
        a.post(-1)
        print("per round trip", (ContinuousClock.now - start) / 200_000, loop.isCurrent)
        let s2 = ContinuousClock.now
        for _ in 0..<10_000 { _ = await pool.run { () -> Int in 1 } }
        print("pool", (ContinuousClock.now - s2) / 10_000, loop.isCurrent)
        try? await reactor.sleep(for: .milliseconds(20))
        c.resume()
      }
    }
  }
  thread.stop()
}
