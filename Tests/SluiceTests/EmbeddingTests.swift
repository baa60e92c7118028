import EventLoop
import FastCGI
import Foundation
import JSON
import Sluice
import SluiceTesting
import Synchronization
import Testing

/// A generator that yields fixed parts, then completes or fails.
private struct Script: Generator {
  var parts: [String] = []
  var error: GeneratorError?
  var reason = FinishReason.stop
  /// The gate at which the generator waits after it accepts and before it yields, if any.
  var accepts: Gate?

  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
    if let accepts {
      output.accept()
      while !accepts.isPassable { try await Task.sleep(for: .milliseconds(2)) }
    }
    for part in parts { try await output.yield(part) }
    if let error { throw error }
    return Completion(
      reason, usage: Usage(promptTokens: 1, completionTokens: parts.count, totalTokens: 1 + parts.count))
  }
}

/// A generator that never completes, and counts its deltas and cancellations.
private final class Endless: Generator {
  let yielded = Atomic(0)
  let cancelled = Atomic(0)

  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
    do {
      while true {
        try await output.yield(String(repeating: "x", count: 1000))
        yielded.add(1, ordering: .relaxed)
      }
    } catch {
      if error is CancellationError { cancelled.add(1, ordering: .relaxed) }
      throw error
    }
  }
}

private struct Named: Authenticator {
  nonisolated(nonsending) func authenticate(_ request: Request) async throws -> User {
    guard let user = request.header("X-User").flatMap(User.init) else { throw Failure(.unauthorized, "Who are you?") }
    return user
  }
}

/// A turn store in memory, whose next `failures` appends fail.
private final class MemoryTurns: TurnStore {
  let all = Locked<[String: [Turn]]>([:])
  let failures = Atomic(0)

  private func key(_ session: String, _ user: User) -> String { "\(user.name)/\(session)" }

  nonisolated(nonsending) func append(
    _ turn: Turn, to session: String, of user: User, createsSession: Bool, mayExist: Bool
  ) async throws -> Bool {
    if failures.load(ordering: .relaxed) > 0 {
      failures.subtract(1, ordering: .relaxed)
      throw Failure(.storeFailed, "no room")
    }
    return all.withLock { all in
      let key = key(session, user)
      guard createsSession || all[key] != nil else { return false }
      if !(mayExist && all[key, default: []].contains { $0.id == turn.id }) { all[key, default: []].append(turn) }
      return true
    }
  }

  nonisolated(nonsending) func hasSession(_ session: String, of user: User) async throws -> Bool {
    all.withLock { $0[key(session, user)] != nil }
  }

  nonisolated(nonsending) func turns(of session: String, of user: User, _ page: Page) async throws -> [Turn]? {
    all.withLock { $0[key(session, user)].map { $0.suffix(page.limit) } }
  }

  nonisolated(nonsending) func sessions(of user: User, _ page: Page) async throws -> [SessionSummary]? {
    all.withLock { all in
      all.filter { $0.key.hasPrefix(user.name + "/") }.map { key, turns in
        SessionSummary(
          id: String(key.dropFirst(user.name.count + 1)), updatedAt: turns.last?.at ?? "", turns: turns.count)
      }
    }
  }

  nonisolated(nonsending) func deleteSession(_ session: String, of user: User) async throws -> Bool {
    all.withLock { $0.removeValue(forKey: key(session, user)) != nil }
  }
}

private struct LinesDialect: Dialect {
  static let name = "lines"
  private static let line = RecordTemplate(#"{"line":"#, "}")

  init(_ stream: StreamMetadata) {}

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: break
    case .delta(let text): records.append(Self.line, text)
    case .part: break  // reasoning, tool calls, a refusal, a source
    case .heartbeat: records.appendHeartbeat()
    case .completed: records.append(event: "end", ["ok": true])
    case .failed(let failure): records.append(event: "error", failure.json)
    case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
    }
  }
}

@Suite("Embedding")
struct EmbeddingTests {
  @Test("A handler's own text and the model's output form one stream with one terminal record")
  func relay() async throws {
    let fixture = try InMemory(generator: Script(parts: ["b", "c"]))
    fixture.application.stream("POST", "/ask/{topic}", dialect: .chat) { context, stream in
      try await stream.send("a \(context.pathParameters["topic"] ?? "?") ")
      let completion = try await stream.relay(Prompt(messages: [Message(.user, "?")]))
      try await stream.send(" \(completion.usage?.totalTokens ?? 0)")
    }
    let response = try await fixture.client.send("POST", "/ask/sea", body: ["q": 1])
    #expect(response.status == 200 && response.isComplete)
    #expect(response.events.compactMap { $0.json?["content"]?.string }.joined() == "a sea bc 3")
    #expect(response.events.compactMap { $0.json?["type"]?.string }.last == "complete")
    #expect(response.headers["sluice-stream-id"]?.count == 36)
  }

  @Test("The terminal record has the finish reason and usage of the last relayed completion")
  func completion() async throws {
    let fixture = try InMemory(generator: Script(parts: ["a", "b"], reason: .length))
    fixture.application.stream("GET", "/cut") { _, stream in
      try await stream.relay(Prompt(messages: []))
      try await stream.send("!")
    }
    let done = try await fixture.client.send("GET", "/cut").events.last
    #expect(
      done?.json?["finishReason"] == "length" && done?.json?["usage"]?["total_tokens"] == 3,
      "\(String(describing: done))")
  }

  /// The ways in which a handler can discard an error that it should rethrow.
  enum Swallow: CaseIterable { case relayed, sequence, waiting }

  @Test(
    "A response that was cut off is never complete, even if its handler catches the error", arguments: Swallow.allCases
  )
  func swallowed(_ swallow: Swallow) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      exchange.sendDelta("partial")
      exchange.waitUntilClosed()
    }
    let fixture = try InMemory([
      "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_IDLE_TIMEOUT": "100ms", "SLUICE_STREAM_TIMEOUT": "3s",
    ])
    let calls = Counter()
    fixture.application.stream("POST", "/cut", supportsIdempotencyKey: true) { _, stream in
      _ = calls.next()
      switch swallow {
      case .relayed:
        do { try await stream.relay(Prompt(messages: [Message(.user, "a")])) } catch is StreamClosedError {}
      case .sequence:
        try await stream.send("partial")
        for await text in AsyncStream<String>(unfolding: {
          try? await Task.sleep(for: .seconds(60))
          return nil
        }) {
          try await stream.send(text)
        }
      case .waiting:
        try await stream.send("partial")
        try? await Task.sleep(for: .seconds(60))
      }
    }
    for _ in 0..<2 {
      let response = try await fixture.client.send("POST", "/cut", headers: ["Idempotency-Key": "k"], body: ["a": 1])
      #expect(response.events.map(\.type) == ["token", "error"], "\(response)")
      #expect(response.events.last?.json?["code"] == "upstream_timeout")
    }
    // No response was stored for replay, so both requests ran the handler.
    #expect(calls.next() == 3)
  }

  @Test("The idle limits do not apply to a handler that does not wait for a model")
  func silence() async throws {
    let fixture = try InMemory(["SLUICE_IDLE_TIMEOUT": "50ms", "SLUICE_FIRST_TOKEN_TIMEOUT": "50ms"])
    fixture.application.stream("GET", "/slow") { _, stream in
      try await Task.sleep(for: .milliseconds(300))
      try await stream.send("a")
      try await Task.sleep(for: .milliseconds(300))
      try await stream.send("b")
    }
    let response = try await fixture.client.send("GET", "/slow")
    #expect(response.events.map(\.type) == ["token", "token", "done"], "\(response)")
  }

  @Test("A relayed prompt gets the configured token limit and system prompt, and the configured model by default")
  func configured() async throws {
    let upstream = try ScriptedUpstream { $0.stream(["a"]) }
    let directory = TemporaryDirectory()
    let fixture = try InMemory([
      "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MODEL": "m", "SLUICE_MAX_TOKENS": "7",
      "SLUICE_SYSTEM_PROMPT_FILE": directory.file("s.txt", "Be kind."),
    ])
    fixture.application.stream("GET", "/plain") { _, stream in
      try await stream.relay(Prompt(messages: [Message(.user, "q")]))
    }
    fixture.application.stream("GET", "/own") { _, stream in
      try await stream.relay(Prompt(messages: [Message(.user, "q")], model: "own", maximumTokens: 99))
    }
    for (path, model) in [("/plain", "m"), ("/own", "own")] {
      #expect(try await fixture.client.send("GET", path).status == 200)
      let asked = try JSON(parsing: Array((upstream.requests.last?.body ?? "").utf8))
      #expect(asked["model"]?.string == model && asked["max_tokens"] == 7, "\(asked)")
      #expect(asked["messages"]?.array?.first?["content"] == "Be kind.", "\(asked)")
    }
  }

  @Test("Cross-site requests are refused before a custom authenticator runs, unless they carry a token")
  func crossSite() async throws {
    let fixture = try InMemory(generator: Script(parts: ["a"]), authenticator: Named())
    for (headers, status) in [
      (["X-User": "ada"], 200), (["X-User": "ada", "Sec-Fetch-Site": "same-origin"], 200),
      (["X-User": "ada", "Sec-Fetch-Site": "cross-site"], 403),
      (["X-User": "ada", "Origin": "https://evil.example", "Host": "here.example"], 403),
      (["X-User": "ada", "Sec-Fetch-Site": "cross-site", "Authorization": "Bearer x"], 200),
      (["X-User": "ada", "Sec-Fetch-Site": "cross-site", "Authorization": "Basic x"], 403),
    ] {
      let response = try await fixture.client.send("GET", "/chat/stream?message=a", headers: headers)
      #expect(response.status == status, "\(headers): \(response)")
    }
  }

  @Test("A finish reason that does not mean completion fails the stream, and nothing is stored")
  func reason() async throws {
    let fixture = try InMemory(generator: Script(parts: ["a"], reason: FinishReason(rawValue: "error")))
    let response = try await fixture.client.send("POST", "/api/chat", body: ["message": "a", "sessionId": "s"])
    #expect(response.events.last?.json?["code"] == "upstream_error", "\(response)")
    #expect(try await fixture.client.send("GET", "/api/sessions/s").status == 404)
    #expect(try await fixture.client.send("GET", "/v1/models").body.contains("\"default\""))
  }

  @Test("A body that exceeds the limit or is not the expected JSON is refused")
  func bodies() async throws {
    let fixture = try InMemory(["SLUICE_MAX_BODY": "100"])
    fixture.application.handle("POST", "/json") { .json(["n": .integer(try $0.json()["a"]?.integer ?? -1)]) }
    fixture.application.stream("POST", "/stream") { _, stream in try await stream.send("a") }
    let long: JSON = ["a": .string(String(repeating: "x", count: 100))]
    for path in ["/json", "/stream"] { #expect(try await fixture.client.send("POST", path, body: long).status == 413) }
    #expect(try await fixture.client.send("POST", "/json", body: ["a": 7]).json?["n"] == 7)
    #expect(try await fixture.client.send("POST", "/json").status == 415)
    let malformed = try await fixture.client.send("POST", "/json", headers: ["Content-Type": "application/json"])
    #expect(malformed.status == 400, "\(malformed)")
  }

  @Test("Cancelling a test client's task disconnects its stream", .timeLimit(.minutes(1)))
  func testClientLeaves() async throws {
    let generator = Endless()
    let fixture = try InMemory(generator: generator, ["SLUICE_MAX_ANSWER": "1G"])
    let client = fixture.client
    let sending = Task { try await client.send("POST", "/api/chat", body: ["message": "a"]) }
    #expect(await eventually { generator.yielded.load(ordering: .relaxed) > 10 })
    sending.cancel()
    let response = try await sending.value
    #expect(!response.isComplete && response.events.allSatisfy { $0.type == "token" })
    #expect(await eventually { generator.cancelled.load(ordering: .relaxed) == 1 })
  }

  @Test("A custom dialect is available only on its own route, where ?dialect= can replace it")
  func dialect() async throws {
    let fixture = try InMemory(generator: Script(parts: ["x"]))
    fixture.application.stream("GET", "/lines", dialect: DialectKind(LinesDialect.self)) { _, stream in
      try await stream.relay(Prompt(messages: []))
    }
    for (path, types) in [
      ("/lines", ["message", "end"]), ("/lines?dialect=lines", ["message", "end"]),
      ("/lines?dialect=events", ["token", "done"]),
    ] {
      let response = try await fixture.client.send("GET", path)
      #expect(response.events.map(\.type) == types, "\(path): \(response.body)")
    }
    let unknown = try await fixture.client.send("GET", "/lines?dialect=morse")
    #expect(unknown.status == 400 && unknown.body.contains("ui, lines"), "\(unknown)")
    #expect(try await fixture.client.send("POST", "/api/chat?dialect=lines", body: ["message": "a"]).status == 400)
  }

  @Test("A custom generator serves all endpoints, and its failures become a status or an error record")
  func generator() async throws {
    let fixture = try InMemory(generator: Script(parts: ["own"]))
    let chat = try await fixture.client.send("POST", "/api/chat", body: ["message": "a", "stream": false])
    #expect(chat.json?["message"] == "own", "\(chat)")
    let slow = GeneratorError(.rateLimited, "later", retryAfter: .seconds(7))
    let refused = try await InMemory(generator: Script(error: slow)).client.send(
      "POST", "/api/chat", body: ["message": "a"])
    #expect(refused.status == 429 && refused.headers["retry-after"] == "7", "\(refused)")
    let failed = try await InMemory(generator: Script(parts: ["a"], error: slow)).client.send(
      "POST", "/api/chat", body: ["message": "a"])
    #expect(failed.status == 200 && failed.events.map(\.type) == ["token", "error"], "\(failed)")
    #expect(failed.events.last?.json?["code"] == "upstream_rate_limited")
  }

  @Test("The AI SDK's own request is a message in a session, and streams in its own format")
  func aiSDK() async throws {
    let fixture = try InMemory(generator: Script(parts: ["b"]))
    func request(_ texts: String...) -> JSON {
      let messages = texts.enumerated().map { (index, text) -> JSON in
        [
          "id": .string("m\(index)"), "role": .string(index % 2 == 0 ? "user" : "assistant"),
          "parts": [["type": "text", "text": .string(text)], ["type": "text", "text": "!"]],
        ]
      }
      return ["id": "chat-1", "messages": .array(messages), "trigger": "submit-message"]
    }
    for texts in [request("a"), request("a", "b", "c")] {
      let response = try await fixture.client.send("POST", "/api/chat?dialect=ui", body: texts)
      #expect(response.headers["x-vercel-ai-ui-message-stream"] == "v1", "\(response)")
      #expect(response.body.contains(#""type":"text-delta""#) && response.body.hasSuffix("data: [DONE]\n\n"))
    }
    let turns = try await fixture.client.send("GET", "/api/sessions/chat-1").json?["turns"]?.array ?? []
    #expect(turns.map { $0["user"]?["content"] } == ["a!", "c!"], "\(turns)")
    let image: JSON = ["id": "chat-1", "messages": [["role": "user", "parts": [["type": "file", "url": "data:"]]]]]
    for (body, status) in [
      (image, 400), (["id": "chat-1", "messages": [["role": "assistant", "parts": []]]], 400),
      (["id": "chat-1", "messages": [["role": "user", "parts": []]]], 400),
      (["id": "a/b", "messages": [["role": "user", "parts": [["type": "text", "text": "a"]]]]], 400),
      (request(String(repeating: "a", count: 70_000)), 413), (["messages": []], 400),
    ] as [(JSON, Int)] {
      let response = try await fixture.client.send("POST", "/api/chat?dialect=ui", body: body)
      #expect(response.status == status, "\(response)")
    }
  }

  @Test("The path is found however the web server divides it into a program and the rest")
  func dividedPaths() async throws {
    let client = try InMemory().client
    for (uri, script, info, status) in [
      // lighttpd without fix-root-scriptname, and Apache by SetHandler: the program is no file.
      ("/api/features?a=/b", "/api", "/features", 200), ("/v1/models", "/v1", "/models", 200),
      ("/%61pi/features", "/api", "/features", 200), ("/api/sessions", "/api", "/sessions", 200),
      // A program below a directory of programs, and a location that rewrites.
      ("/cgi-bin/sluice/api/features", "/cgi-bin/sluice", "/api/features", 200),
      ("/fast/v1/models", "/fast/v1/models", "/v1/models", 200),
      ("/api/features", "", "/api/features", 200), ("/api/none", "/api", "/none", 404),
      ("/other", "/other", "/api/features", 200),
    ] {
      let response = try await client.send(
        "GET", uri, parameters: ["SCRIPT_NAME": script, "PATH_INFO": info])
      #expect(response.status == status, "\(uri) \(script) \(info): \(response)")
    }
  }

  @Test("The head is sent when a custom generator accepts, before it yields any text")
  func accept() async throws {
    let gate = Gate()
    let application = try InMemory(generator: Script(parts: ["a"], accepts: gate)).application
    let head = try await onLoop { reactor in
      let transport = MemoryTransport(on: reactor)
      application.respond(
        InMemory.chatRequest, ResponseWriter(transport, isHeadRequest: false, writeTimeout: .seconds(60)), on: reactor)
      _ = await eventually { !transport.text.isEmpty }
      let head = transport.text
      gate.open()
      _ = await eventually { transport.isFinished }
      return head
    }
    // Apache passes a head on only with the first bytes of the body, so there is a comment.
    #expect(head.hasPrefix("Status: 200 OK") && head.hasSuffix("\r\n\r\n:\n"), "\(head)")
  }

  @Test("An endless generator is paused by a slow reader, and cancelled when the reader disconnects")
  func backpressure() async throws {
    let generator = Endless()
    let fixture = try InMemory(generator: generator, ["SLUICE_MAX_ANSWER": "1G"])
    let (application, yielded) = (fixture.application, generator)
    let (early, late) = try await onLoop { reactor in
      let transport = MemoryTransport(on: reactor)
      transport.isBlocked = true
      application.respond(
        InMemory.chatRequest, ResponseWriter(transport, isHeadRequest: false, writeTimeout: .seconds(60)), on: reactor)
      _ = await eventually { yielded.yielded.load(ordering: .relaxed) > 0 }
      for _ in 0..<50 { await reactor.nextTurn() }
      let early = yielded.yielded.load(ordering: .relaxed)
      transport.disconnect()
      _ = await eventually { yielded.cancelled.load(ordering: .relaxed) == 1 }
      return (early, yielded.cancelled.load(ordering: .relaxed))
    }
    #expect((1..<300).contains(early), "\(early) KB were taken while nobody read")
    #expect(late == 1)
  }

  @Test("A custom authenticator guards every route that is not public")
  func authenticator() async throws {
    let fixture = try InMemory(generator: Script(parts: ["a"]), authenticator: Named())
    fixture.application.handle("GET", "/me") { .json(["user": .string($0.user.name)]) }
    fixture.application.handle("GET", "/open", isPublic: true) { .json(["user": .string($0.user.name)]) }
    let refused = try await fixture.client.send("GET", "/me")
    #expect(refused.status == 401 && refused.json?["error"]?["message"] == "Who are you?", "\(refused)")
    #expect(try await fixture.client.send("POST", "/api/chat", body: ["message": "a"]).status == 401)
    #expect(try await fixture.client.send("GET", "/me", headers: ["X-User": "ada"]).json?["user"] == "ada")
    #expect(try await fixture.client.send("GET", "/open").json?["user"] == "anonymous")
  }

  @Test("A custom turn store serves histories, lists and deletions, and a failed append is retried")
  func turnStore() async throws {
    let store = MemoryTurns()
    let fixture = try InMemory(generator: Script(parts: ["yes"]), turnStore: store)
    let client = fixture.client
    func send(_ message: String) async throws -> TestResponse {
      try await client.send("POST", "/api/chat", body: ["message": .string(message), "sessionId": "s"])
    }
    #expect(try await send("one").events.last?.type == "done")
    #expect(try await client.send("GET", "/api/sessions").json?["sessions"] != .array([]))
    let session = try await client.send("GET", "/api/sessions/s")
    #expect(session.body.contains("\"content\":\"one\"") && session.body.contains("\"content\":\"yes\""), "\(session)")
    #expect(!FileManager.default.fileExists(atPath: fixture.directory.path + "/state/users/anonymous/sessions"))
    store.failures.store(1, ordering: .relaxed)
    let failed = try await send("two")
    #expect(failed.events.last?.json?["code"] == "store_failed", "\(failed)")
    #expect(store.all.withLock { $0["anonymous/s"]?.count } == 1)
    // Retries as a server does every second. The time limit is generous because other tests can occupy Swift's thread
    // pool, on which the store is called.
    #expect(await eventually(within: .seconds(120)) { await fixture.application.retryUnsaved() == 0 })
    #expect(store.all.withLock { $0["anonymous/s"]?.map(\.user.content) } == ["one", "two"])
    #expect(try await client.send("DELETE", "/api/sessions/s").status == 204)
    #expect(try await client.send("GET", "/api/sessions/s").status == 404)
  }

  @Test("A response is stored under its Idempotency-Key only if its route supports it", arguments: [false, true])
  func idempotency(isSupported: Bool) async throws {
    let fixture = try InMemory()
    let counter = Counter()
    fixture.application.stream("POST", "/roll", supportsIdempotencyKey: isSupported) { _, stream in
      try await stream.send("\(counter.next())")
    }
    var texts: [String] = []
    for _ in 0..<2 {
      let response = try await fixture.client.send(
        "POST", "/roll", headers: ["Idempotency-Key": "k"], body: ["a": "b"])
      texts.append(response.events.first?.json?["t"]?.string ?? "\(response)")
    }
    #expect(texts == (isSupported ? ["1", "1"] : ["1", "2"]))
    let replays = fixture.directory.path + "/state/users/anonymous/replays"
    #expect(FileManager.default.fileExists(atPath: replays) == isSupported)
  }

  @Test("A custom feature flag disables an endpoint globally or per location")
  func feature() async throws {
    for (environment, status) in [("", 200), ("on", 200), ("off", 404), ("perhaps", 500)] {
      let fixture = try InMemory(["ENABLE_ROLL": environment])
      fixture.application.stream("GET", "/roll", feature: Feature("ENABLE_ROLL")) { _, stream in
        try await stream.send("6")
      }
      #expect(try await fixture.client.send("GET", "/roll").status == status, "\(environment)")
      let parameters = ["ENABLE_ROLL": "off"]
      let off = try await fixture.client.send("GET", "/roll", parameters: parameters)
      #expect(off.status == 404 && off.body.contains("streaming_disabled"), "\(off)")
      let features = try await fixture.client.send("GET", "/api/features", parameters: parameters)
      #expect(features.json?["features"]?["ENABLE_ROLL"] == false, "\(features)")
    }
  }

  @Test("A stream counts as a message unless its route opts out")
  func messages() async throws {
    let fixture = try InMemory(["SLUICE_MESSAGES_PER_HOUR": "1"])
    fixture.application.stream("GET", "/free", countsAsMessage: false) { _, stream in try await stream.send("a") }
    fixture.application.stream("GET", "/counted") { _, stream in try await stream.send("a") }
    for (path, status) in [("/free", 200), ("/free", 200), ("/counted", 200), ("/counted", 429), ("/free", 200)] {
      #expect(try await fixture.client.send("GET", path).status == status, "\(path)")
    }
  }

  @Test("Two applications in one process share nothing")
  func two() async throws {
    let first = try InMemory(generator: Script(parts: ["1"]), ["SLUICE_STREAMS_PER_USER": "1"])
    let second = try InMemory(generator: Script(parts: ["2"]))
    first.application.handle("GET", "/only") { _ in .json([:]) }
    #expect(try await first.client.send("GET", "/only").status == 200)
    #expect(try await second.client.send("GET", "/only").status == 404)
    async let one = first.client.send("POST", "/api/chat", body: ["message": "a", "stream": false])
    async let two = second.client.send("POST", "/api/chat", body: ["message": "a", "stream": false])
    #expect(try await one.json?["message"] == "1")
    #expect(try await two.json?["message"] == "2")
  }

  @Test(
    "Cancelling an application's task lets running streams complete before it returns", .timeLimit(.minutes(1))
  )
  func cancellation() async throws {
    let directory = TemporaryDirectory()
    let socket = directory.path + "/s"
    let application = try Application(environment: [
      "SLUICE_AUTH": "none", "SLUICE_STATE": directory.path, "SLUICE_LISTEN": "unix:" + socket, "SLUICE_LOG": "error",
    ])
    let gate = Gate()
    application.stream("GET", "/wait") { _, stream in
      try await stream.send("a")
      while !gate.isPassable { try await Task.sleep(for: .milliseconds(2)) }
      try await stream.send("b")
    }
    let running = Task { try await application.run() }
    #expect(await eventually { FileManager.default.fileExists(atPath: socket) })
    let client = try FastCGIClient(path: socket)
    client.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/wait")]))
    #expect(await eventually { application.runningStreams == 1 })
    running.cancel()
    #expect(await eventually { application.isDraining })
    gate.open()
    let text = await Task.detached { client.readResponse().text }.value
    #expect(text.contains("\"b\"") && text.contains("event: done"), "\(text)")
    try await running.value
  }

  @Test("An application whose task was cancelled before it ran returns immediately", .timeLimit(.minutes(1)))
  func cancelledBefore() async throws {
    let directory = TemporaryDirectory()
    let application = try Application(environment: [
      "SLUICE_AUTH": "none", "SLUICE_STATE": directory.path, "SLUICE_LISTEN": "unix:" + directory.path + "/s",
      "SLUICE_LOG": "error",
    ])
    let running = Task {
      while !Task.isCancelled { await Task.yield() }
      try await application.run()
    }
    running.cancel()
    try await running.value
  }
}

private final class Counter: Sendable {
  private let value = Atomic(0)
  func next() -> Int { value.add(1, ordering: .relaxed).newValue }
}
