import EventLoop
import EventStream
import FastCGI
import JSON
import SluiceTesting
import Testing
import Upstream

@testable import Sluice

/// A generation that writes to memory, with a clock that the test advances.
private final class Fixture {
  let transport: MemoryTransport
  let generation: Generation
  let output = ModelOutput()
  let reactor: Reactor
  let clock: ManualClock
  private(set) var termination: Termination?
  private let ended = Waiter()

  init(
    _ reactor: Reactor, _ clock: ManualClock, limits: GenerationLimits = GenerationLimits(),
    heartbeat: Duration = .seconds(15), isJSON: Bool = false, model: String? = nil, rules: [RedactionRules.Rule] = [],
    dialect type: (any Dialect.Type)? = nil, transport: MemoryTransport? = nil
  ) {
    self.reactor = reactor
    self.clock = clock
    self.transport = transport ?? MemoryTransport(on: reactor)
    let transport = self.transport
    var metadata = StreamMetadata(messageID: "id")
    metadata.model = model ?? metadata.model
    let dialect = (type ?? (model == nil ? EventsDialect.self : OpenAIDialect.self)).init(metadata)
    let format: DeliveryFormat =
      isJSON ? .json { _, text in ["message": .string(text)] } : .eventStream(dialect, ids: .none)
    let writer = ResponseWriter(transport, isHeadRequest: false, writeTimeout: .seconds(60))
    let delivery = StreamClient.http(writer).delivery(
      of: "id", format, to: Request(parameters: [:]), heartbeat: heartbeat, on: reactor, pool: BlockingPool())
    var options = Generation.Options()
    if !rules.isEmpty { options.redactor = Redactor(rules) }
    generation = Generation(
      id: "id", messageID: "id", options, limits: limits, reactor: reactor, delivery: delivery)
    let task = reactor.spawn { [self] in
      var termination: Termination
      do {
        termination = .completed(GenerationResult(completion: try await generation.relay(output, isLast: true)))
      } catch {
        termination = .failed(Failure(cause: error))
      }
      termination = await generation.close(termination)
      self.termination = termination
      ended.wake()
    }
    generation.start { task.cancel() }
  }

  func pass(_ time: Duration) async { await clock.advance(by: time, on: reactor) }
  func end() async -> Outcome? {
    for _ in 0..<50 where termination == nil { await reactor.nextTurn() }
    return termination?.outcome
  }

  /// The records written so far, without the head.
  var events: [ServerSentEvent] {
    guard let end = transport.text.firstRange(of: "\r\n\r\n") else { return [] }
    var parser = EventStreamParser()
    let body = Array(transport.text[end.upperBound...].utf8)
    return (try? parser.events(in: body.span)) ?? []
  }

  var types: [String] { events.map(\.type) }
  var status: String { String(transport.text.prefix { $0 != "\r" && $0 != "\r\n" }) }
}

private func test<Success: Sendable>(
  limits: GenerationLimits = GenerationLimits(), heartbeat: Duration = .seconds(15), isJSON: Bool = false,
  model: String? = nil, rules: RedactionRules? = nil, dialect: (any Dialect.Type)? = nil,
  _ body: @escaping @Sendable (Fixture) async throws -> Success
) async throws -> Success {
  let clock = ManualClock()
  return try await onLoop(clock: clock.loopClock) { reactor in
    let fixture = Fixture(
      reactor, clock, limits: limits, heartbeat: heartbeat, isJSON: isJSON, model: model, rules: rules?.rules ?? [],
      dialect: dialect)
    await reactor.nextTurn()
    let result = try await body(fixture)
    // Terminates a generation that still runs; afterwards, no timers must be left.
    if fixture.termination == nil {
      fixture.generation.terminate(.disconnected)
      _ = await fixture.end()
    }
    if reactor.pendingTimers > 0 { throw Failure(.internalError, "\(reactor.pendingTimers) timers are left") }
    return result
  }
}

@Suite("Generation")
struct GenerationTests {
  @Test("Deltas are sent as they arrive, with one write per loop turn and one terminal record")
  func usual() async throws {
    let (writes, types, outcome) = try await test { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      fixture.output.yield("a")
      await fixture.reactor.nextTurn()
      fixture.output.yield("b")
      fixture.output.yield("c")
      await fixture.reactor.nextTurn()
      fixture.output.finish(Completion())
      let outcome = await fixture.end()
      return (fixture.transport.writes.count, fixture.types, outcome)
    }
    // There is one write each for the head, "a", "b" with "c", and the terminal record.
    #expect(writes == 4)
    #expect(types == ["token", "token", "token", "done"])
    #expect(outcome == .completed)
  }

  @Test("A delta that arrives with the acceptance is sent in one write with the head")
  func firstDelta() async throws {
    let (writes, types) = try await test { fixture in
      fixture.output.accept()
      fixture.output.yield("a")
      await fixture.reactor.nextTurn()
      return (fixture.transport.writes.count, fixture.types)
    }
    #expect(writes == 1 && types == ["token"], "\(writes) writes of \(types)")
  }

  @Test("Deltas that arrive together, or have waited for the reader, are sent in few writes", arguments: [false, true])
  func manyDeltas(isBlocked: Bool) async throws {
    let (writes, text) = try await test { fixture in
      fixture.output.accept()
      fixture.output.yield("0 ")
      await fixture.reactor.nextTurn()
      fixture.transport.isBlocked = isBlocked
      for number in 1...1000 { fixture.output.yield("\(number) ") }
      await fixture.reactor.nextTurn()
      fixture.transport.isBlocked = false
      fixture.output.finish(Completion())
      _ = await fixture.end()
      return (fixture.transport.writes, fixture.generation.text)
    }
    #expect(text == (0...1000).map { "\($0) " }.joined())
    // About 34 bytes per record, and 8,184 per write.
    #expect(writes.count <= 8, "\(writes.count) writes of \(writes.map(\.utf8.count)) bytes")
  }

  @Test("The head is deferred until the upstream accepts, so that a refusal has its own status")
  func deferredHead() async throws {
    let (early, status, outcome) = try await test { fixture in
      await fixture.pass(.seconds(1))
      let early = fixture.transport.text
      fixture.output.fail(GeneratorError(.rateLimited, "slow", retryAfter: .seconds(3)))
      let outcome = await fixture.end()
      return (early, fixture.status, outcome)
    }
    #expect(early == "")
    #expect(status == "Status: 429 Too Many Requests")
    #expect(outcome == .upstreamError)
  }

  @Test("The head is deferred for at most one heartbeat interval, and heartbeats are sent only in silence")
  func heartbeats() async throws {
    let (types, failed) = try await test(limits: GenerationLimits(idle: .seconds(100)), heartbeat: .seconds(5)) {
      fixture in
      await fixture.pass(.seconds(6))
      fixture.output.accept()
      fixture.output.yield("a")
      await fixture.pass(.seconds(3))
      fixture.output.yield("b")
      await fixture.pass(.seconds(3))
      await fixture.pass(.seconds(3))
      let types = fixture.types
      fixture.output.fail(GeneratorError(.failed, "no"))
      _ = await fixture.end()
      return (types, fixture.types.last)
    }
    #expect(types == ["heartbeat", "token", "token", "heartbeat"])
    #expect(failed == "error")
  }

  @Test("A silent model times out with a status before the first token, and with a record after it")
  func silence() async throws {
    let limits = GenerationLimits(firstToken: .seconds(60), idle: .seconds(30))
    let first = try await test(limits: limits, heartbeat: .zero) { fixture in
      await fixture.pass(.seconds(59))
      let early = fixture.status
      await fixture.pass(.seconds(2))
      return (early, await fixture.end(), fixture.status)
    }
    #expect(first == ("", .timeout, "Status: 504 Gateway Timeout"))
    let later = try await test(limits: limits, heartbeat: .zero) { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      for _ in 0..<5 {
        fixture.output.yield("a")
        await fixture.pass(.seconds(25))
      }
      let early = fixture.types
      await fixture.pass(.seconds(6))
      return (early.count, await fixture.end(), fixture.events.last)
    }
    #expect(later.0 == 5 && later.1 == .timeout)
    #expect(later.2?.type == "error" && later.2?.data.contains("upstream_timeout") == true)
  }

  @Test("A late first delta starts the idle limit, not the rest of the first-token limit")
  func lateFirstDelta() async throws {
    let limits = GenerationLimits(firstToken: .seconds(600), idle: .seconds(30))
    let (early, outcome) = try await test(limits: limits, heartbeat: .zero) { fixture in
      // Longer than the idle limit.
      await fixture.pass(.seconds(35))
      fixture.output.yield("a")
      await fixture.pass(.seconds(29))
      let early = fixture.types
      await fixture.pass(.seconds(2))
      return (early, await fixture.end())
    }
    #expect(early == ["token"] && outcome == .timeout, "\(early) \(String(describing: outcome))")
  }

  @Test("A response that waits for capacity when its first token is due is refused as overloaded")
  func waiting() async throws {
    let (outcome, status) = try await test(limits: GenerationLimits(firstToken: .seconds(60)), heartbeat: .zero) {
      fixture in
      fixture.output.refusalWhileWaiting = GeneratorError(.overloaded, "busy")
      await fixture.pass(.seconds(61))
      return (await fixture.end(), fixture.status)
    }
    #expect(outcome == .failed && status == "Status: 503 Service Unavailable", "\(String(describing: outcome))")
  }

  @Test(
    "Activity without a record in the dialect lets heartbeats continue, and the idle limit starts at its last sign",
    arguments: [true, false])
  func activity(isReasoning: Bool) async throws {
    let limits = GenerationLimits(firstToken: .seconds(60), idle: .seconds(30))
    let (early, outcome, types) = try await test(limits: limits, dialect: isReasoning ? ChatDialect.self : nil) {
      fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      for _ in 0..<6 {
        if isReasoning {
          fixture.output.yield(OutputChunk(.reasoning("hm")))
        } else {
          fixture.output.noteActivity()
        }
        await fixture.pass(.seconds(20))
      }
      let early = Array(fixture.transport.text.utf8).split(separator: 0x0A).count { $0 == [0x3A] } + fixture.types.count
      await fixture.pass(.seconds(11))
      return (early, await fixture.end(), fixture.types)
    }
    #expect(early >= 5, "\(early) \(types)")
    #expect(outcome == .timeout && types.last == (isReasoning ? "message" : "error"), "\(types)")
  }

  @Test("Deltas of one turn are sent together, however long their records are")
  func longRecords() async throws {
    let (count, outcome) = try await test(model: String(repeating: "m", count: 1000)) { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      for index in 0..<20 { fixture.output.yield("\(index) ") }
      await fixture.reactor.nextTurn()
      // The first record contains only the role.
      let count = fixture.events.count - 1
      fixture.output.finish(Completion())
      return (count, await fixture.end())
    }
    #expect(count == 20)
    #expect(outcome == .completed)
  }

  @Test("Withheld text is sent as soon as it can no longer match, and heartbeats continue")
  func withheld() async throws {
    let rules = RedactionRules(parsing: "long  x{12000}y\n")
    let (early, late, types) = try await test(rules: rules) { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      fixture.output.yield("a" + String(repeating: "x", count: 11_000))
      await fixture.reactor.nextTurn()
      let early = fixture.events.filter { $0.type == "token" }.reduce(0) { $0 + $1.data.utf8.count }
      fixture.output.yield("b")
      await fixture.reactor.nextTurn()
      let late = fixture.events.filter { $0.type == "token" }.reduce(0) { $0 + $1.data.utf8.count }
      await fixture.pass(.seconds(16))
      let types = fixture.types
      fixture.output.finish(Completion())
      _ = await fixture.end()
      return (early, late, types)
    }
    #expect(early == 9 && late > 11_000, "\(early), then \(late)")
    #expect(types.last == "heartbeat", "\(types)")
  }

  @Test(
    "Deltas stay in order when the source resumes during a flush, and are redacted as one text", arguments: [0, 1, 2])
  func order(cut: Int) async throws {
    let rules = RedactionRules(parsing: "key  sk-[a-z]{4}\n")
    // The secret begins at the end of a large delta.
    let large = String(repeating: "1", count: 66_000) + "sk-a"
    let (text, outcome) = try await test(rules: rules) { fixture in
      var pending = ["bcd 2", " 3"]
      fixture.output.onDrain = { for text in exchange(&pending, with: []) { fixture.output.yield(text) } }
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      if cut == 0 {
        fixture.output.yield(large)
      } else {
        fixture.transport.isBlocked = true
        fixture.output.yield(String(large.prefix(cut * 20_000)))
        fixture.output.yield(String(large.dropFirst(cut * 20_000)))
      }
      _ = fixture.output.isFull
      await fixture.reactor.nextTurn()
      fixture.transport.isBlocked = false
      for _ in 0..<5 { await fixture.reactor.nextTurn() }
      #expect(pending.isEmpty)
      fixture.output.finish(Completion())
      let outcome = await fixture.end()
      let texts = fixture.events.filter { $0.type == "token" }.compactMap {
        (try? JSON(parsing: Array($0.data.utf8)))?["t"]?.string
      }
      return (texts.joined(), outcome)
    }
    #expect(text == String(repeating: "1", count: 66_000) + "[redacted] 2 3", "\(text.suffix(40))")
    #expect(outcome == .completed)
  }

  @Test("The total time limit applies even while deltas arrive")
  func total() async throws {
    let outcome = try await test(limits: GenerationLimits(total: .seconds(100))) { fixture in
      fixture.output.accept()
      for _ in 0..<11 {
        fixture.output.yield("a")
        await fixture.pass(.seconds(10))
      }
      return await fixture.end()
    }
    #expect(outcome == .timeout)
  }

  @Test("A stopped stream ends with one cancelled record, even before the first token", arguments: [false, true])
  func stopped(afterToken: Bool) async throws {
    let (events, outcome, isFinished) = try await test { fixture in
      fixture.output.accept()
      if afterToken { fixture.output.yield("a") }
      await fixture.reactor.nextTurn()
      fixture.generation.terminate(.stopped)
      let outcome = await fixture.end()
      return (fixture.events, outcome, fixture.transport.isFinished)
    }
    #expect(events.last == ServerSentEvent(type: "cancelled", data: #"{"reason":"stopped"}"#))
    #expect(events.count == (afterToken ? 2 : 1))
    #expect(outcome == .stopped && isFinished)
  }

  @Test("A disconnect cancels the source and aborts the response", arguments: [0, 1, 2])
  func disconnected(stage: Int) async throws {
    let (outcome, wasCancelled, isAborted) = try await test { fixture in
      var wasCancelled = false
      fixture.output.onCancel = { wasCancelled = true }
      if stage > 0 { fixture.output.accept() }
      if stage > 1 { fixture.output.yield("a") }
      await fixture.reactor.nextTurn()
      fixture.transport.disconnect()
      let outcome = await fixture.end()
      return (outcome, wasCancelled, fixture.transport.isAborted)
    }
    #expect(outcome == .disconnected && wasCancelled && isAborted)
  }

  @Test("Releasing a closed generation does not affect the next one on its connection")
  func nextOnConnection() async throws {
    let outcome = try await test { fixture in
      let transport = MemoryTransport(on: fixture.reactor)
      var first: Fixture? = Fixture(fixture.reactor, fixture.clock, transport: transport)
      first?.output.finish(Completion())
      _ = await first?.end()
      weak let released = first?.generation
      let next = Fixture(fixture.reactor, fixture.clock, transport: transport)
      first = nil
      await fixture.reactor.nextTurn()
      if released != nil { throw Failure(.internalError, "the first generation is still there") }
      transport.disconnect()
      return await next.end()
    }
    #expect(outcome == .disconnected)
  }

  @Test("Deltas for a client that reads nothing are buffered, and sent without loss once it reads again")
  func slowClient() async throws {
    let (during, text, outcome) = try await test { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      fixture.transport.isBlocked = true
      for index in 0..<100 { fixture.output.yield("\(index) ") }
      await fixture.pass(.seconds(45))
      let during = fixture.types.count
      fixture.transport.isBlocked = false
      fixture.output.finish(Completion())
      let outcome = await fixture.end()
      let text = fixture.events.filter { $0.type == "token" }.map(\.data).joined()
      return (during, text, outcome)
    }
    #expect(during == 0)
    #expect(text == (0..<100).map { "{\"t\":\"\($0) \"}" }.joined())
    #expect(outcome == .completed)
  }

  @Test("A client that reads nothing for too long is disconnected")
  func stuckClient() async throws {
    let outcome = try await test { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      fixture.transport.isBlocked = true
      fixture.output.yield("a")
      await fixture.reactor.nextTurn()
      await fixture.pass(.seconds(61))
      return await fixture.end()
    }
    #expect(outcome == .disconnected)
  }

  @Test("A generation over its text limit fails")
  func tooLong() async throws {
    let (outcome, types) = try await test(limits: GenerationLimits(maximumTextBytes: 10)) { fixture in
      fixture.output.accept()
      await fixture.reactor.nextTurn()
      for _ in 0..<3 { fixture.output.yield("12345") }
      return (await fixture.end(), fixture.types)
    }
    #expect(outcome == .upstreamError)
    #expect(types == ["token", "token", "error"])
  }

  @Test("A JSON response contains the complete text, or has the failure's status")
  func jsonResponse() async throws {
    let text = try await test(isJSON: true) { fixture in
      fixture.output.yield("a")
      fixture.output.yield("b")
      fixture.output.finish(Completion())
      _ = await fixture.end()
      return fixture.transport.text
    }
    #expect(text.hasPrefix("Status: 200 OK\r\n") && text.hasSuffix("\r\n\r\n{\"message\":\"ab\"}\n"), "\(text)")
    let failed = try await test(isJSON: true) { fixture in
      fixture.output.yield("a")
      await fixture.reactor.nextTurn()
      fixture.output.fail(GeneratorError(.truncated, "cut"))
      _ = await fixture.end()
      return fixture.transport.text
    }
    #expect(failed.hasPrefix("Status: 502 Bad Gateway\r\n") && failed.contains("upstream_truncated"), "\(failed)")
  }
}
