import EventLoop
import Foundation
import JSON
import SluiceTesting
import Synchronization
import Testing

@testable import Sluice

/// A generator whose deltas a test releases one by one. It never completes by itself before the last one.
private final class Steps: Generator {
  private let parts: [String]
  private let released = Atomic(0)
  private let yieldedParts = Atomic(0)
  private let startCount = Atomic(0)
  private let cancelCount = Atomic(0)

  init(_ parts: String...) { self.parts = parts }

  var starts: Int { startCount.load(ordering: .relaxed) }
  var cancellations: Int { cancelCount.load(ordering: .relaxed) }
  var yielded: Int { yieldedParts.load(ordering: .relaxed) }

  /// Allows `count` deltas in all, and waits until they have been yielded.
  func release(_ count: Int) async {
    released.store(count, ordering: .relaxed)
    #expect(await eventually(within: .seconds(60)) { yielded >= min(count, parts.count) })
  }

  /// Allows all deltas and the completion.
  func complete() { released.store(.max, ordering: .relaxed) }

  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
    startCount.add(1, ordering: .relaxed)
    output.accept()
    do {
      for (index, part) in (parts + [""]).enumerated() {
        while released.load(ordering: .relaxed) <= index { try await Task.sleep(for: .milliseconds(1)) }
        try await output.yield(part)
        // The relaying task and the readers have their turns first.
        for _ in 0..<10 { await Task.yield() }
        yieldedParts.add(1, ordering: .relaxed)
      }
    } catch {
      cancelCount.add(1, ordering: .relaxed)
      throw error
    }
    return Completion(.stop)
  }
}

private struct Named: Authenticator {
  nonisolated(nonsending) func authenticate(_ request: Request) async throws -> User {
    User(request.header("X-User") ?? "anonymous") ?? User("anonymous")!
  }
}

extension InMemory {
  fileprivate static func resumable(
    _ generator: Steps, clock: LoopClock = SlowClock().loopClock, _ environment: [String: String] = [:]
  ) throws -> InMemory {
    try InMemory(
      generator: generator, authenticator: Named(), clock: clock, ["SLUICE_RESUME": "5s"].merging(environment) { $1 })
  }

  /// Starts a chat. The response is the task's value.
  fileprivate func chat(
    _ headers: [String: String] = [:], _ body: JSON = ["message": "a", "sessionId": "s"], path: String = "/api/chat"
  ) -> Task<TestResponse, any Error> {
    Task { [client] in try await client.send("POST", path, headers: headers, body: body) }
  }

  fileprivate func get(_ path: String, _ headers: [String: String] = [:]) async throws -> TestResponse {
    try await client.send("GET", path, headers: headers)
  }

  /// The value of a metric.
  fileprivate func metric(_ name: String) async throws -> Int? {
    let line = try await get("/metrics").body.split(separator: "\n").first { $0.hasPrefix(name + " ") }
    return line.flatMap { Int($0.dropFirst(name.count + 1)) }
  }
}

extension TestResponse {
  fileprivate var text: String { events.compactMap { $0.json?["t"]?.string }.joined() }
  fileprivate var stream: String { headers["sluice-stream-id"] ?? "?" }
  fileprivate var errorCode: String? { json?["error"]?["code"]?.string }
}

@Suite("Reading a stream again")
struct ResumeTests {
  @Test("A client that comes back in time continues; the model is asked once, and one turn is stored")
  func comesBack() async throws {
    let (clock, steps) = (SlowClock(), Steps("a", "b", "c"))
    let fixture = try InMemory.resumable(steps, clock: clock.loopClock)
    let first = fixture.chat()
    await steps.release(2)
    first.cancel()
    let lost = try await first.value
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_generations_detached") == 1 })
    clock.advance(by: .milliseconds(4500))
    let reader = Task { try await fixture.get("/api/streams/\(lost.stream)?after=1") }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_generations_detached") == 0 })
    clock.advance(by: .milliseconds(4500))
    steps.complete()
    let response = try await reader.value
    #expect(response.text == "bc" && response.events.last?.type == "done", "\(response)")
    #expect(steps.starts == 1)
    #expect(try await fixture.get("/api/sessions/s").json?["turns"].map { "\($0)" }?.contains("abc") == true)
    #expect(try await fixture.metric("sluice_resumed_total") == 1)
    #expect(try await fixture.metric("sluice_transcript_bytes") ?? 0 >= 6)
    // The stream can be read for as long after its end.
    #expect(try await fixture.get("/api/streams/\(lost.stream)").text == "abc")
    clock.advance(by: .seconds(5))
    #expect(
      try await eventually(within: .seconds(60)) { try await fixture.get("/api/streams/\(lost.stream)").status == 404 })
    #expect(try await fixture.metric("sluice_transcript_bytes") == 0)
  }

  @Test("A client that does not come back in time ends the generation, and nothing is stored or remembered")
  func staysAway() async throws {
    let (clock, steps) = (SlowClock(), Steps("a", "b"))
    let fixture = try InMemory.resumable(steps, clock: clock.loopClock)
    let first = fixture.chat()
    await steps.release(1)
    first.cancel()
    let stream = try await first.value.stream
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_generations_detached") == 1 })
    clock.advance(by: .milliseconds(4500))
    #expect(steps.cancellations == 0 && fixture.application.runningStreams == 1)
    clock.advance(by: .milliseconds(600))
    #expect(
      await eventually(within: .seconds(60)) { steps.cancellations == 1 && fixture.application.runningStreams == 0 })
    #expect(try await fixture.get("/api/streams/\(stream)").status == 404)
    #expect(try await fixture.get("/api/sessions/s").status == 404)
    #expect(try await fixture.metric("sluice_transcript_bytes") == 0)
  }

  @Test("The stream, the running stream of a session and a key of another user are not found")
  func otherUsers() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let own = fixture.chat(["X-User": "alice", "Idempotency-Key": "k"])
    await steps.release(1)
    let running = Task { try await fixture.get("/api/sessions/s/stream", ["X-User": "alice"]) }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 1 })
    #expect(try await fixture.get("/api/sessions/s/stream", ["X-User": "bob"]).errorCode == "not_found")
    steps.complete()
    let stream = try await own.value.stream
    for path in ["/api/streams/\(stream)", "/api/streams/\(stream)?after=1", "/api/sessions/s/stream"] {
      let response = try await fixture.get(path, ["X-User": "bob"])
      #expect(response.status == 404 && response.errorCode == "not_found", "\(path): \(response)")
    }
    let event = try await fixture.get(
      "/chat/stream?message=a", ["X-User": "bob", "Accept": "text/event-stream", "Last-Event-ID": stream + ".1"])
    #expect(event.status == 204, "\(event)")
    // Another user's key is a key of its own.
    let same = try await fixture.chat(["X-User": "bob", "Idempotency-Key": "k"]).value
    #expect(same.stream != stream && same.text == "ab" && steps.starts == 2)
    #expect(try await running.value.text == "ab")
    // What has ended is in the session, not in the running stream.
    #expect(try await fixture.get("/api/sessions/s/stream", ["X-User": "alice"]).status == 204)
  }

  @Test("A POST with the key of a running stream reads it from its start, in its own dialect")
  func joinsByKey() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps, ["SLUICE_STREAMS_PER_USER": "1", "SLUICE_MESSAGES_PER_HOUR": "1"])
    let first = fixture.chat(["Idempotency-Key": "k"])
    await steps.release(1)
    let second = fixture.chat(["Idempotency-Key": "k"], path: "/api/chat?dialect=chat")
    let json = fixture.chat(
      ["Idempotency-Key": "k"], path: "/api/chat")
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 2 })
    let other = try await fixture.chat(["Idempotency-Key": "k"], ["message": "b"]).value
    #expect(other.status == 400 && other.errorCode == "bad_request", "\(other)")
    steps.complete()
    let (firstResponse, secondResponse) = (try await first.value, try await second.value)
    #expect(firstResponse.text == "ab")
    #expect(secondResponse.events.compactMap { $0.json?["content"]?.string } == ["a", "b"], "\(secondResponse)")
    #expect(secondResponse.stream == firstResponse.stream && steps.starts == 1)
    #expect(try await json.value.text == "ab")
  }

  @Test("A JSON response is shared under its key, and its stream under its session")
  func json() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let body: JSON = ["message": "a", "session_id": "s"]
    let first = fixture.chat(["Idempotency-Key": "k"], body, path: "/chat/message")
    await steps.release(1)
    first.cancel()
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_generations_detached") == 1 })
    let second = fixture.chat(["Idempotency-Key": "k"], body, path: "/chat/message")
    let stream = Task { try await fixture.get("/api/sessions/s/stream") }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 2 })
    steps.complete()
    #expect(try await second.value.json?["message"] == "ab" && steps.starts == 1)
    #expect(try await stream.value.text == "ab")
  }

  @Test("A JSON response without a key or a session ends with its client")
  func unnamedJSON() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps, clock: SlowClock().loopClock)
    let first = fixture.chat([:], ["messages": [["role": "user", "content": "a"]]], path: "/v1/chat/completions")
    await steps.release(1)
    first.cancel()
    #expect(await eventually(within: .seconds(60)) { steps.cancellations == 1 })
  }

  @Test("An EventSource that reconnects continues its stream, and stops after the end")
  func eventSource() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let source = ["Accept": "text/event-stream"]
    let first = Task { try await fixture.get("/chat/stream?message=a", source) }
    await steps.release(1)
    first.cancel()
    let lost = try await first.value
    #expect(lost.body.contains("id: \(lost.stream).1\ndata: "), "\(lost)")
    let again = Task {
      try await fixture.get("/chat/stream?message=a", source.merging(["Last-Event-ID": lost.stream + ".1"]) { $1 })
    }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 1 })
    steps.complete()
    let response = try await again.value
    #expect(response.events.compactMap { $0.json?["content"]?.string } == ["b"], "\(response)")
    #expect(response.body.contains("id: \(lost.stream).end\ndata: {\"type\":\"complete\""), "\(response)")
    for id in [lost.stream + ".end", "unknown.3", lost.stream, "x"] {
      let ended = try await fixture.get("/chat/stream?message=a", source.merging(["Last-Event-ID": id]) { $1 })
      #expect(ended.status == (id == lost.stream ? 400 : 204), "\(id): \(ended)")
    }
    #expect(steps.starts == 1)
  }

  @Test("An EventSource of a session's running stream receives its end, although it reconnects after that")
  func eventSourceOfSession() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let first = fixture.chat()
    await steps.release(1)
    let source = Task { try await fixture.get("/api/sessions/s/stream") }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 1 })
    source.cancel()
    let lost = try await source.value
    steps.complete()
    _ = try await first.value
    let next = fixture.chat()
    let rest = try await fixture.get("/api/sessions/s/stream", ["Last-Event-ID": lost.stream + ".1"])
    #expect(rest.text == "b" && rest.events.last?.type == "done", "\(rest)")
    for id in [lost.stream + ".end", "unknown.1"] {
      #expect(try await fixture.get("/api/sessions/s/stream", ["Last-Event-ID": id]).status == 204, "\(id)")
    }
    _ = try await next.value
  }

  @Test(
    "A position that does not exist is refused",
    arguments: ["?after=3", "?after=-1", "?after=x", "?after=", "?after=99999999999999999999", "?after=1.0"])
  func badPosition(query: String) async throws {
    let steps = Steps("a", "b")
    steps.complete()
    let fixture = try InMemory.resumable(steps)
    let stream = try await fixture.chat().value.stream
    let response = try await fixture.get("/api/streams/\(stream)\(query)")
    #expect(response.status == 400 && response.errorCode == "bad_request", "\(response)")
    for id in ["other.1", "\(stream).3", "\(stream).", stream, "1"] {
      let response = try await fixture.get("/api/streams/\(stream)", ["Last-Event-ID": id])
      #expect(response.status == 400, "\(id): \(response)")
    }
    #expect(try await fixture.get("/api/streams/\(stream)", ["Last-Event-ID": stream + ".end"]).status == 204)
    #expect(try await fixture.get("/api/streams/\(stream)?after=2").events.map(\.type) == ["done"])
    #expect(try await fixture.get("/api/streams/\(stream)?dialect=none").status == 400)
  }

  @Test("The eleventh simultaneous reader is refused, and a reader that leaves makes room")
  func tooManyReaders() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let first = fixture.chat()
    await steps.release(1)
    let readers = (0..<9).map { _ in Task { try await fixture.get("/api/sessions/s/stream") } }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 9 })
    let refused = try await fixture.get("/api/sessions/s/stream")
    #expect(refused.status == 429 && refused.errorCode == "too_many_streams", "\(refused)")
    first.cancel()
    _ = try await first.value
    let next = Task { try await fixture.get("/api/sessions/s/stream") }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 10 })
    steps.complete()
    for reader in readers + [next] { #expect(try await reader.value.text == "ab") }
  }

  @Test("A stop ends the stream for all readers, each with its terminal record")
  func stop() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let first = fixture.chat()
    await steps.release(1)
    let second = Task { try await fixture.get("/api/sessions/s/stream") }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 1 })
    let third = Task { try await fixture.get("/api/sessions/s/stream") }
    #expect(try await eventually(within: .seconds(60)) { try await fixture.metric("sluice_resumed_total") == 2 })
    third.cancel()
    let stream = try await third.value.stream
    #expect(try await fixture.client.send("DELETE", "/api/streams/\(stream)").status == 204)
    for response in [try await first.value, try await second.value] {
      #expect(response.events.map(\.type) == ["token", "cancelled"] && response.isComplete, "\(response)")
    }
    // The end can be read again too, but the session has no running stream.
    #expect(try await fixture.get("/api/streams/\(stream)").events.map(\.type) == ["token", "cancelled"])
  }

  @Test("Deleting a session ends its stream, which can then not be read again")
  func deletedSession() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps)
    let first = fixture.chat()
    await steps.release(1)
    #expect(try await fixture.client.send("DELETE", "/api/sessions/s").status == 204)
    let response = try await first.value
    #expect(response.events.map(\.type) == ["token", "cancelled"])
    #expect(try await fixture.get("/api/streams/\(response.stream)").status == 404)
  }

  @Test("Without SLUICE_RESUME nothing can be read again, and a stream ends with its client")
  func off() async throws {
    let steps = Steps("a", "b")
    let fixture = try InMemory.resumable(steps, ["SLUICE_RESUME": "0"])
    let first = Task { try await fixture.get("/chat/stream?message=a", ["Accept": "text/event-stream"]) }
    await steps.release(1)
    first.cancel()
    let lost = try await first.value
    #expect(await eventually(within: .seconds(60)) { steps.cancellations == 1 })
    let response = try await fixture.get("/api/streams/\(lost.stream)")
    #expect(response.status == 404 && response.errorCode == "streaming_disabled", "\(response)")
    #expect(try await fixture.get("/api/sessions/s/stream").status == 404)
    let again = try await fixture.get("/chat/stream?message=a", ["Last-Event-ID": lost.stream + ".1"])
    #expect(again.status == 204 && steps.starts == 1)
  }

  @Test(
    "Without SLUICE_RESUME only the first record of an EventSource has an id, the terminal record if there is no other")
  func firstID() async throws {
    for parts in [[], ["a", "b"]] {
      let steps = parts.isEmpty ? Steps() : Steps("a", "b")
      steps.complete()
      let fixture = try InMemory.resumable(steps, ["SLUICE_RESUME": "0"])
      let source = ["Accept": "text/event-stream"]
      let response = try await fixture.get("/chat/stream?message=a", source)
      let ids = response.body.split(separator: "\n").filter { $0.hasPrefix("id:") }
      let record = parts.isEmpty ? "end\ndata: {\"type\":\"complete\"" : "1\ndata: {\"type\":\"chunk\""
      // A head that is sent before any record is followed by a comment.
      let records = response.body.hasPrefix(":\n") ? response.body.dropFirst(2) : response.body[...]
      #expect(ids.count == 1 && records.hasPrefix("id: \(response.stream).\(record)"), "\(response)")
      for dialect in ["openai", "ui"] {
        let response = try await fixture.get("/chat/stream?message=a&dialect=\(dialect)", source)
        #expect(!response.body.contains("id: "), "\(response)")
      }
    }
  }

  @Test("An error that came before the head is sent to each reader with its status")
  func refusal() async throws {
    let fixture = try InMemory(
      ["SLUICE_RESUME": "5s", "SLUICE_UPSTREAM_URL": "http://127.0.0.1:1/v1"])
    let response = try await fixture.chat().value
    #expect(response.status == 502 && response.errorCode == "upstream_error", "\(response)")
    #expect(try await fixture.metric("sluice_streams_open") == 0)
  }

  @Test("A dialect with several records for a delta has the id on the last of them")
  func lastRecordHasID() {
    var records = Records(Array("before\n\n".utf8))
    var start = records.beginEvent(Array("id: S.".utf8), number: 7)
    records.append(event: "x", ["a": 1])
    records.append(["b": 2])
    let hasID = records.endEvent(at: start)
    #expect(hasID)
    #expect(records.text == "before\n\nevent: x\ndata: {\"a\":1}\n\nid: S.7\ndata: {\"b\":2}\n\n")
    start = records.beginEvent(Array("id: S.".utf8), number: nil)
    let hasAnotherID = records.endEvent(at: start)
    #expect(!hasAnotherID && records.text.hasSuffix("\"b\":2}\n\n"))
  }
}
