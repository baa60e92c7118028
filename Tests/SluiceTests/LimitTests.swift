import EventLoop
import FastCGI
import Foundation
import JSON
import SluiceTesting
import Synchronization
import Testing

@testable import Sluice

/// A server that allows ten streams per user, with an upstream whose behavior the message selects.
private final class Fixture {
  let services: Services
  let reactor: Reactor
  private let directory = TemporaryDirectory()
  private let upstream: ScriptedUpstream
  private let handler: RequestDispatcher

  init(on reactor: Reactor) throws {
    self.reactor = reactor
    upstream = try ScriptedUpstream { exchange in
      let body = exchange.request.body
      if body.contains("refuse") { return exchange.respond("500 Oops", "{}") }
      if body.contains("silent") { _ = exchange.waitUntilClosed() } else { exchange.sendHead() }
      exchange.sendDelta("Hel")
      if body.contains("cut") { return exchange.reset() }
      if body.contains("hang") { _ = exchange.waitUntilClosed() }
      exchange.sendDelta("lo", finishReason: "stop")
      exchange.sendDone()
    }
    services = try Services(upstream: upstream.baseURL, in: directory)
    handler = RequestDispatcher(services, routes: .builtIn(services), on: reactor)
  }

  func send(_ message: String, _ transport: MemoryTransport, type: String = "application/json") {
    let body = JSON.object(["input": .string(message)]).encoded
    let parameters: Parameters = [
      "REQUEST_METHOD": "POST", "REQUEST_URI": "/api/stream/ai-block/quiz", "CONTENT_TYPE": type,
    ]
    handler.respond(
      Request(parameters: parameters, body: body),
      ResponseWriter(transport, isHeadRequest: false, writeTimeout: .milliseconds(5)))
  }

  func eventually(_ condition: () -> Bool) async throws -> Bool {
    for _ in 0..<10_000 where !condition() { try await reactor.sleep(for: .milliseconds(1)) }
    return condition()
  }
}

@Suite("Limits")
struct LimitTests {
  @Test(
    "Slots are released however their streams end, a thousand times in a row",
    arguments: ["complete", "bad type", "refuse", "cut", "silent, left", "hang, left", "hang, stopped", "hang, stuck"])
  func slots(_ way: String) async throws {
    try await onLoop { reactor in
      let fixture = try Fixture(on: reactor)
      for round in 0..<100 {
        var transports: [MemoryTransport] = []
        for _ in 0..<10 {
          let transport = MemoryTransport(on: reactor)
          transports.append(transport)
          transport.isBlocked = way.hasSuffix("stuck")
          fixture.send(way, transport, type: way == "bad type" ? "text/plain" : "application/json")
        }
        if way.hasPrefix("silent") || way.hasPrefix("hang") {
          let isRunning = try await fixture.eventually {
            way.hasPrefix("silent") ? fixture.services.streamLimiter.streams == 10 : true
          }
          #expect(isRunning)
          if way.hasSuffix("left") {
            if way.hasPrefix("hang") {
              _ = try await fixture.eventually { transports.allSatisfy { $0.text.contains("Hel") } }
            }
            for transport in transports { transport.disconnect() }
          } else if way.hasSuffix("stopped") {
            _ = try await fixture.eventually { transports.allSatisfy { $0.text.contains("Hel") } }
            for (id, user) in fixture.services.generations.running {
              #expect(fixture.services.generations.stop(id, for: user))
            }
          }
        }
        let isComplete = try await fixture.eventually {
          transports.allSatisfy { $0.isFinished || $0.isAborted } && fixture.services.streamLimiter.streams == 0
        }
        try #require(isComplete, "round \(round): \(fixture.services.streamLimiter.streams) slots are taken")
        #expect(!transports.contains { $0.text.hasPrefix("Status: 429") }, "round \(round)")
      }
      // All ten slots must be free again: of eleven streams, ten run and one is refused.
      let full = (0..<11).map { _ in MemoryTransport(on: reactor) }
      for transport in full { fixture.send("hang", transport) }
      #expect(try await fixture.eventually { full.count { $0.text.contains("Hel") } == 10 })
      #expect(try await fixture.eventually { full.count { $0.text.hasPrefix("Status: 429") } == 1 })
      for transport in full { transport.disconnect() }
      #expect(
        try await fixture.eventually {
          fixture.services.streamLimiter.streams == 0 && fixture.services.generations.count == 0
        })
    }
  }

  @Test("The message window slides, survives a restart, and reports when the next message is allowed")
  func window() async throws {
    let directory = TemporaryDirectory()
    let user = try #require(User("ada"))
    let store = Store(root: directory.path, pool: BlockingPool())
    let start = 1_000_000_000_000
    for index in 0..<5 {
      #expect(
        try await store.countMessage(of: user, limit: 5, clock: { start + index * 1000 })
          == .counted(at: start + index * 1000))
    }
    let other = Store(root: directory.path, pool: BlockingPool())
    #expect(
      try await other.countMessage(of: user, limit: 5, clock: { start + 10_000 }) == .full(.milliseconds(3_590_000)))
    #expect(
      try await other.countMessage(of: user, limit: 5, clock: { start + 3_600_000 }) == .counted(at: start + 3_600_000))
    #expect(try await other.countMessage(of: user, limit: 5, clock: { start + 3_600_500 }) == .full(.milliseconds(500)))
    // After the limit is lowered, a message is allowed only when all excess messages have left the window.
    #expect(
      try await other.countMessage(of: user, limit: 2, clock: { start + 3_600_500 }) == .full(.milliseconds(3_500)))
    // Uncounting a message makes room for another one.
    try await other.removeMessage(of: user, at: start + 3_600_000)
    #expect(
      try await other.countMessage(of: user, limit: 5, clock: { start + 3_600_500 }) == .counted(at: start + 3_600_500))
    // A clock that was set back does not lock users out.
    #expect(try await other.countMessage(of: user, limit: 5, clock: { start - 1000 }) == .counted(at: start - 1000))
  }

  @Test("Shared slots are acquired and released one by one, and each has at most one holder", arguments: [1, 3, 50])
  func sharedSlots(limit: Int) async throws {
    let directory = TemporaryDirectory()
    let user = try #require(User("ada"))
    let store = Store(root: directory.path, pool: BlockingPool())
    var slots: [SharedSlot] = []
    for _ in 0..<limit { slots.append(try #require(try await store.acquireSlot(of: user, limit: limit))) }
    #expect(try await store.acquireSlot(of: user, limit: limit) == nil)
    #expect(try await store.acquireSlot(limit: 1) != nil)
    slots.removeFirst()
    // A process that another test is starting inherits all descriptors for a moment, and with them the lock.
    #expect(try await eventually { try await store.acquireSlot(of: user, limit: limit) != nil })
  }

  @Test("An Idempotency-Key lock is exclusive and ends with its owner, and its response is stored")
  func locks() async throws {
    try await onLoop { _ in try await Self.locksOnLoop() }
  }

  private static func locksOnLoop() async throws {
    let directory = TemporaryDirectory()
    let user = try #require(User("ada"))
    let store = Store(root: directory.path, pool: BlockingPool())
    func acquire() async throws -> IdempotencyState {
      try await store.acquireIdempotencyKey(of: "k", request: "r", by: "s1", user)
    }
    var lock: IdempotencyLock?
    if case .acquired(let acquired) = try await acquire() { lock = acquired }
    #expect(lock != nil)
    guard case .inProgress(stream: "s1") = try await acquire() else {
      Issue.record("not running")
      return
    }
    // Closing the descriptor releases the lock, as the end of a killed process does. A process that another test is
    // starting inherits the descriptor for a moment.
    lock = nil
    var taken: IdempotencyLock?
    _ = try await eventually {
      if case .acquired(let lock) = try await acquire() { taken = lock }
      return taken != nil
    }
    let again = try #require(taken)
    let replay = Replay(
      request: "r", messageID: "m", text: "Hello\r\n🎧",
      result: GenerationResult(
        messageID: "m", sessionID: "s",
        completion: .init(usage: .init(promptTokens: 1, completionTokens: 2, totalTokens: 3)),
        extraMembers: ["a": [.literal("1e400")]]))
    #expect(await store.runningStream(of: "k", user) == "s1")
    #expect(await store.runningStream(of: "other", user) == nil)
    try await store.complete(again, with: replay)
    guard case .completed(let kept) = try await acquire() else {
      Issue.record("not complete")
      return
    }
    #expect(kept == replay)
    // After one hour the stored response has expired, and the key can be acquired again.
    let name = try #require(
      try FileManager.default.contentsOfDirectory(atPath: directory.path + "/users/ada/replays").first { $0 != "swept" }
    )
    try FileManager.default.setAttributes(
      [.modificationDate: Date(timeIntervalSinceNow: -3700)],
      ofItemAtPath: directory.path + "/users/ada/replays/" + name)
    guard case .acquired(let late) = try await acquire() else {
      Issue.record("not free after an hour")
      return
    }
    await store.release(late)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path + "/users/ada/replays") == ["swept"])
  }
}
