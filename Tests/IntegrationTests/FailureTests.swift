import EventLoop
import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Failures behind nginx")
  struct FailureTests {
    private let form = ["-H", "Content-Type: text/plain", "-d", "x"]

    @Test(
      "A refused request gets its own HTTP status, has OpenAI's error format under /v1, and never reaches the model")
    func requests() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["a"]) }
      let servers = try await Servers([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MAX_BODY": "2000", "SLUICE_MAX_MESSAGE": "1000",
      ])
      let long = String(repeating: "a", count: 1001)
      let cases: [(String, String, Int)] = [
        (try await servers.post("/stream/", "{}"), "bad_request", 400),
        (try await servers.post("/stream/", #"{"content":"a"}"#), "bad_request", 400),
        (try await servers.get("/chat/stream"), "bad_request", 400),
        (try await servers.post("/api/chat", "{}", token: "x"), "unauthorized", 401),
        (try await servers.get("/chat/stream?message=a&token=x", token: ""), "unauthorized", 401),
        (try await servers.get("/chat/stream?message=a", token: ""), "unauthorized", 401),
        (try await servers.get("/api/none"), "not_found", 404),
        (try await servers.get("/api/streams/none", ["-X", "DELETE"]), "not_found", 404),
        (try await servers.get("/api/chat"), "method_not_allowed", 405),
        (try await servers.post("/messages/", "{\"content\":\"\(long)\",\"chat_id\":1}"), "payload_too_large", 413),
        (try await servers.post("/api/chat", "{\"x\":\"\(long)\(long)\"}"), "payload_too_large", 413),
        (try await servers.get("/api/ai/report", form), "unsupported_media_type", 415),
      ]
      for (output, code, status) in cases {
        #expect(
          output.status == status && output.errorCode == code && output.json["error"]?["retriable"] == .bool(false),
          "\(output)")
      }
      let openai = [
        (try await servers.post("/v1/chat/completions", "{}"), "invalid_request_error"),
        (try await servers.get("/v1/models", token: "x"), "authentication_error"),
        (try await servers.get("/v1/none"), "invalid_request_error"),
        (
          try await servers.post(
            "/v1/chat/completions", #"{"messages":[{"role":"user","content":"a"}],"tools":1}"#),
          "invalid_request_error"
        ),
        (
          try await servers.post(
            "/v1/chat/completions", #"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#),
          "invalid_request_error"
        ),
        (
          try await servers.post("/v1/chat/completions", #"{"messages":[{"role":"user","content":"a"}],"n":0}"#),
          "invalid_request_error"
        ),
      ]
      for (output, type) in openai {
        #expect(output.json["error"]?["type"]?.string == type && output.json["error"]?["param"] == .null, "\(output)")
      }
      #expect(upstream.requests.isEmpty && servers.storedLines.isEmpty)
      _ = await servers.stop()
    }

    @Test("A refusal by a limit states when to retry, and running streams complete")
    func limits() async throws {
      let servers = try await Servers([
        "SLUICE_ECHO_GAP": "30ms", "SLUICE_STREAMS_PER_USER": "2", "SLUICE_MESSAGES_PER_HOUR": "5",
      ])
      let words = String(repeating: "word ", count: 60)
      let running = try (0..<2).map { _ in try servers.chat(words) }
      for curl in running { #expect(await eventually { curl.output.contains("event: token") }) }
      let third = try await servers.post("/v1/chat/completions", #"{"messages":[{"role":"user","content":"a"}]}"#)
      #expect(
        third.status == 429 && third.errorCode == "too_many_streams" && third.field("Retry-After") == "5", "\(third)")
      #expect(third.json["error"]?["type"] == "rate_limit_error")
      for curl in running { #expect(await servers.output(of: curl).contains("event: done")) }
      // The refused request did not count as a message.
      for _ in 0..<3 { #expect(try await servers.post("/api/chat", #"{"message":"a"}"#).status == 200) }
      let sixth = try await servers.post("/api/chat", #"{"message":"a"}"#)
      #expect(sixth.status == 429 && sixth.errorCode == "rate_limited", "\(sixth)")
      let seconds = try #require(sixth.field("Retry-After").flatMap { Int($0) })
      #expect((3500...3600).contains(seconds))
      // Requests that call no model are not limited.
      #expect(try await servers.get("/api/sessions").status == 200)
      _ = await servers.stop()

      let full = try await Servers(["SLUICE_ECHO_GAP": "30ms", "SLUICE_MAX_STREAMS": "1"])
      let only = try full.chat(words)
      #expect(await eventually { only.output.contains("event: token") })
      let second = try await full.post("/api/chat", #"{"message":"a"}"#)
      #expect(
        second.status == 503 && second.errorCode == "overloaded" && second.field("Retry-After") == "5", "\(second)")
      _ = await full.stop()
    }

    @Test(
      "An upstream failure is an error record once the head is sent, and an error status in a JSON response")
    func upstream() async throws {
      let upstream = try ScriptedUpstream { exchange in
        if exchange.request.body.contains("\"slow\"") { exchange.pause(.milliseconds(400)) }
        switch exchange.request.body {
        case let body where body.contains("limit"): exchange.respond("429 Slow", "{}")
        case let body where body.contains("system"): exchange.respond("500 Oops", "{}")
        case let body where body.contains("cut"):
          exchange.sendHead()
          exchange.sendDelta("Hel")
        default: exchange.respond("429 Slow", "{}")
        }
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_HEARTBEAT": "100ms"])
      let late = try await servers.post("/api/chat", #"{"message":"slow"}"#)
      #expect(
        late.status == 200 && late.events.map(\.type).last == "error" && late.contains("upstream_rate_limited"),
        "\(late)")
      #expect(late.events.contains { $0.type == "heartbeat" })
      let complete = try await servers.post("/api/chat", #"{"message":"cut","stream":false}"#)
      #expect(complete.status == 502 && complete.errorCode == "upstream_truncated", "\(complete)")
      #expect(servers.storedLines.isEmpty)
      _ = await servers.stop()
    }

    @Test("A store failure is reported by status or record after the complete response")
    func store() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms"])
      let user = servers.state + "/users/demo"
      try FileManager.default.createDirectory(atPath: user, withIntermediateDirectories: true)
      // Nothing can be read or created through a dangling link.
      try FileManager.default.createSymbolicLink(atPath: user + "/sessions", withDestinationPath: "/nowhere/at/all")
      let streamed = try await servers.post("/api/chat", #"{"message":"a b"}"#)
      #expect(
        streamed.events.map(\.type) == ["token", "token", "error"] && streamed.contains("store_failed"), "\(streamed)")
      let complete = try await servers.post("/chat/message", #"{"message":"a b"}"#)
      #expect(complete.status == 500 && complete.errorCode == "store_failed", "\(complete)")
      #expect(await servers.outcomes(2) == ["store_failed", "store_failed"])
      try FileManager.default.removeItem(atPath: user + "/sessions")
      #expect(try await servers.post("/api/chat", #"{"message":"a b"}"#).events.last?.type == "done")
      _ = await servers.stop()
    }

    @Test("A failure of the server itself is reported as internal, before and after the head")
    func internalFailures() async throws {
      let servers = try await Servers(["SLUICE_HEARTBEAT": "50ms"])
      let sessions = servers.state + "/users/demo/sessions"
      try FileManager.default.createDirectory(atPath: sessions + "/directory.jsonl", withIntermediateDirectories: true)
      let before = try await servers.post("/api/chat", #"{"message":"a","sessionId":"directory"}"#)
      #expect(before.status == 500 && before.errorCode == "internal", "\(before)")
      // A pipe replaces the onboarding state: opening it blocks until the test writes, and its content is invalid.
      let pipe = servers.state + "/users/demo/onboarding.json"
      #expect(unsafe mkfifo(pipe, 0o600) == 0)
      let curl = try servers.curl("/chat/onboarding-stream?message=a&dialect=events")
      #expect(await eventually { curl.output.contains("event: heartbeat") })
      let writer = unsafe open(pipe, O_WRONLY)
      unsafe write(writer, "x", 1)
      close(writer)
      let behind = await servers.output(of: curl)
      #expect(behind.events.last?.type == "error" && behind.contains(#""code":"internal""#), "\(behind)")
      #expect(!behind.contains("onboarding.json"))
      _ = await servers.stop()
    }

    @Test("A shutdown is reported by status or record")
    func shutdown() async throws {
      let servers = try await Servers([
        "SLUICE_ECHO_GAP": "20ms", "SLUICE_DRAIN_TIMEOUT": "1s", "SLUICE_HEARTBEAT": "0",
      ])
      let words = String(repeating: "word ", count: 500)
      let streamed = try servers.chat(words)
      let complete = try servers.startPost("/api/chat", "{\"message\":\"\(words)\",\"stream\":false}")
      #expect(await eventually { servers.demo.log("stream started").count == 2 && streamed.output.contains("token") })
      kill(servers.pid, SIGTERM)
      let record = await servers.output(of: streamed)
      #expect(record.events.last?.type == "error" && record.contains("shutting_down"), "\(record.suffix(300))")
      let status = await servers.output(of: complete)
      #expect(
        status.status == 503 && status.errorCode == "shutting_down" && status.field("Retry-After") != nil, "\(status)")
      #expect(servers.storedLines.isEmpty)
      _ = await servers.stop()
    }
  }
}
