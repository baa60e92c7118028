import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Users behind nginx")
  struct UserTests {
    @Test("A user cannot see, list, stop, replay or overwrite anything of another user")
    func apart() async throws {
      let file = try await TokensFile("ada", "eve")
      let (ada, eve) = (file.tokens[0], file.tokens[1])
      let servers = try await Servers(["SLUICE_ECHO_GAP": "10ms", "SLUICE_TOKENS_FILE": file.path])
      let key = ["-H", "Idempotency-Key: k"]
      let mine = try await servers.post("/api/chat", #"{"message":"secret","sessionId":"s"}"#, key, token: ada)
      let report =
        try await servers.post("/api/reports", #"{"report":{"secret":1}}"#, token: ada).json["id"]?.string ?? ""
      _ = try await servers.get("/chat/onboarding-stream?message=secret", token: ada)

      // See and list.
      for path in ["/api/sessions/s", "/api/reports/\(report)"] {
        #expect(try await servers.get(path, token: eve).status == 404, "\(path)")
      }
      for (path, list) in [
        ("/api/sessions", "sessions"), ("/api/reports", "reports"), ("/messages/?chat_id=s", "messages"),
      ] {
        #expect(try await servers.get(path, token: eve).json == [list: []], "\(path)")
      }
      // These ids decode to paths or contain a NUL byte.
      for id in ["..%2fada%2fsessions%2fs", "..%2f..%2fada%2freports%2f\(report)", "%2e%2e", "s%00"] {
        for path in ["/api/sessions/", "/api/reports/"] {
          let output = try await servers.get(path + id, ["--path-as-is"], token: eve)
          #expect(output.status == 404 || output.status == 400, "\(path)\(id): \(output)")
        }
      }
      // Replay: each user has separate Idempotency-Keys.
      let theirs = try await servers.post("/api/chat", #"{"message":"secret","sessionId":"s"}"#, key, token: eve)
      #expect(theirs.events.last?.json["messageId"] != mine.events.last?.json["messageId"])
      // Overwrite and delete: eve's session of the same name is separate.
      #expect(try await servers.get("/api/sessions/s", ["-X", "DELETE"], token: eve).status == 204)
      #expect(try await servers.get("/api/sessions/s", token: ada).json["turns"]?.count == 1)
      let step = try await servers.get("/chat/onboarding-stream?message=x", token: eve).events.last?.json["step"]
      #expect(step == .integer(1))
      // Stop.
      let running = try servers.chat(String(repeating: "word ", count: 300), token: ada)
      #expect(await eventually { running.output.contains("event: token") })
      let id = running.output.field("Sluice-Stream-Id") ?? ""
      #expect(try await servers.get("/api/streams/\(id)", ["-X", "DELETE"], token: eve).status == 404)
      #expect(try await servers.get("/api/streams/\(id)", ["-X", "DELETE"], token: ada).status == 204)
      #expect(await servers.output(of: running).events.last?.type == "cancelled")
      _ = await servers.stop()
    }

    @Test("A repeated Idempotency-Key gets 409 while the first request runs, and the stored response afterwards")
    func idempotency() async throws {
      let upstream = try ScriptedUpstream { exchange in
        if exchange.request.body.contains("again"), exchange.request.body.contains("cut") {
          exchange.sendHead()
          return exchange.sendDelta("Hel")
        }
        exchange.stream(["Hel", "lo"], gap: .milliseconds(150))
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let key = ["-H", "Idempotency-Key: one"]
      let running = try servers.startPost("/api/chat", #"{"message":"Hi"}"#, key)
      #expect(await eventually { running.output.contains("event: token") })
      let conflict = try await servers.post("/api/chat", #"{"message":"Hi"}"#, key)
      #expect(conflict.status == 409 && conflict.errorCode == "conflict", "\(conflict)")
      #expect(conflict.field("Sluice-Stream-Id") == running.output.field("Sluice-Stream-Id"))
      let first = await servers.output(of: running)
      let second = try await servers.post("/api/chat", #"{"message":"Hi"}"#, key)
      #expect(second.events.last?.data == first.events.last?.data && second.events.last?.type == "done", "\(second)")
      #expect(second.events.dropLast().compactMap { $0.json["t"]?.string }.joined() == "Hello")
      let inOpenAI = try await servers.post("/api/chat?dialect=ui", #"{"message":"Hi"}"#, key)
      #expect(inOpenAI.events.first?.json["messageId"] == first.events.last?.json["messageId"], "\(inOpenAI)")
      #expect(upstream.requests.count == 1 && servers.storedLines.count == 1)
      let other = try await servers.post("/api/chat", #"{"message":"Ho"}"#, key)
      #expect(other.errorCode == "bad_request", "\(other)")
      #expect(
        try await servers.post("/api/chat", #"{"message":"Hi"}"#, ["-H", "Idempotency-Key: a b"]).status == 400)

      // A failed or abandoned response is not stored, so a repeat calls the model again.
      for _ in 0..<2 {
        let failed = try await servers.post(
          "/stream/", #"{"content":"cut again","chat_id":1}"#, ["-H", "Idempotency-Key: two"])
        #expect(failed.events.last?.type == "error", "\(failed)")
      }
      #expect(upstream.requests.count == 3)
      let left = try servers.startPost(
        "/api/stream/ai-block/quiz", #"{"input":"x"}"#, ["-H", "Idempotency-Key: three"])
      #expect(await eventually { left.output.contains("event: chunk") })
      left.signal(SIGKILL)
      #expect(
        await eventually { servers.demo.log("stream ended").contains { $0["outcome"] as? String == "disconnected" } })
      let again = try await servers.post(
        "/api/stream/ai-block/quiz", #"{"input":"x"}"#, ["-H", "Idempotency-Key: three"])
      #expect(again.events.map(\.type) == ["chunk", "chunk", "complete"], "\(again)")
      let kept = try await servers.post(
        "/api/stream/ai-block/quiz", #"{"input":"x"}"#, ["-H", "Idempotency-Key: three"])
      #expect(kept.events.last?.json["seq"] == .integer(1) && kept.events.first?.json["token"] == "Hello", "\(kept)")
      _ = await servers.stop()
    }
  }
}
