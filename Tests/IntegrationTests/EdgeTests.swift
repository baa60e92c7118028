import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Edge cases")
  struct EdgeTests {
    @Test("An Idempotency-Key is looked up before the limits, so a conflict needs no slot, and replays can overlap")
    func keys() async throws {
      let narrow = try await Servers(["SLUICE_ECHO_GAP": "20ms", "SLUICE_STREAMS_PER_USER": "1"])
      let (one, two) = (["-H", "Idempotency-Key: one"], ["-H", "Idempotency-Key: two"])
      let body = "{\"message\":\"\(String(repeating: "word ", count: 100))\"}"
      let only = try narrow.startPost("/api/chat", body, two)
      #expect(await eventually { only.output.contains("event: token") })
      let same = try await narrow.post("/api/chat", body, two)
      #expect(same.status == 409, "\(same)")
      _ = await narrow.stop()
      let servers = try await Servers(["SLUICE_ECHO_GAP": "20ms"])
      let first = try await servers.post("/api/chat", #"{"message":"a","sessionId":"s"}"#, one)
      let words = String(repeating: "word ", count: 100)
      let running = try servers.startPost("/api/chat", "{\"message\":\"\(words)\"}", two)
      #expect(await eventually { running.output.contains("event: token") })
      let conflict = try await servers.post("/api/chat", "{\"message\":\"\(words)\"}", two)
      #expect(conflict.status == 409, "\(conflict)")
      let replays = try (0..<8).map { _ in try servers.startPost("/api/chat", #"{"message":"a","sessionId":"s"}"#, one)
      }
      for replay in replays {
        let output = await servers.output(of: replay)
        #expect(output.events.last?.data == first.events.last?.data, "\(output)")
      }
      _ = await servers.output(of: running)
      // A message has the same timestamp in the response, in its replay and in the list.
      let sent = try await servers.post(
        "/messages/", #"{"content":"x","chat_id":"m"}"#, ["-H", "Idempotency-Key: m"]
      ).json
      let again = try await servers.post(
        "/messages/", #"{"content":"x","chat_id":"m"}"#, ["-H", "Idempotency-Key: m"]
      ).json
      let listed = try await servers.get("/messages/?chat_id=m").json["messages"]?[1]
      #expect(sent == again && sent == listed, "\(sent) \(again) \(String(describing: listed))")
      // Deleting a session also deletes its replays.
      #expect(try await servers.get("/api/sessions/s", ["-X", "DELETE"]).status == 204)
      let anew = try await servers.post("/api/chat", #"{"message":"a","sessionId":"s"}"#, one)
      #expect(anew.events.last?.json["messageId"] != first.events.last?.json["messageId"])
      #expect(try await servers.get("/api/sessions?before=gone").errorCode == "not_found")
      _ = await servers.stop()
    }

    @Test(
      "JSON endpoints ignore the dialect, ids can be any integer, and a report can be nested as deeply as a request body"
    )
    func shapes() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0", "SLUICE_MAX_MESSAGE": "1000"])
      for (path, body) in [
        ("/chat/message", #"{"message":"a"}"#), ("/messages/", #"{"content":"a","chat_id":99999999999999999999}"#),
      ] {
        let output = try await servers.post(path + "?dialect=chat", body)
        #expect(output.field("Content-Type") == "application/json" && output.contains("\"a\""), "\(output)")
      }
      #expect(try await servers.get("/api/sessions/99999999999999999999").status == 200)
      let deep = String(repeating: "{\\\"a\\\":", count: 63) + "{}" + String(repeating: "}", count: 63)
      let key = ["-H", "Idempotency-Key: deep"]
      // The response is one level deeper than the JSON parser accepts, so it is searched and compared as text.
      let answer = try await servers.post("/api/ai/report", "{\"input\":\"\(deep)\",\"save\":true}", key)
      let id = answer.components(separatedBy: "\"reportId\":\"").last?.prefix { $0 != "\"" } ?? ""
      #expect(try await servers.get("/api/reports/\(id)").status == 200)
      #expect(try await servers.get("/api/reports").json["reports"]?.count == 1)
      let again = try await servers.post("/api/ai/report", "{\"input\":\"\(deep)\",\"save\":true}", key)
      #expect(again.body == answer.body)
      let ui = try await servers.get("/chat/stream?message=x&dialect=ui", ["-I"])
      #expect(ui.field("x-vercel-ai-ui-message-stream") == "v1" && ui.body == "", "\(ui)")
      let long = String(repeating: "a", count: 1001)
      let refused = try await servers.post(
        "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"\(long)\"}]}")
      #expect(refused.status == 413 && refused.errorCode == "payload_too_large", "\(refused)")
      _ = await servers.stop()
    }

    @Test(
      "A permanent upstream error is not retriable, and request parameters keep their names")
    func upstream() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.request.body.contains("refuse") ? exchange.respond("401 No", "{}") : exchange.stream(["a"])
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MAX_TOKENS": "50"])
      let refused = try await servers.post("/api/chat", #"{"message":"refuse"}"#)
      #expect(
        refused.errorCode == "upstream_error" && refused.json["error"]?["retriable"] == .bool(false), "\(refused)")
      #expect(try await servers.get("/v1/models").json["data"] == [])
      let many = (0..<2000).map { "\"p\($0)\":\($0)" }.joined(separator: ",")
      _ = try await servers.post(
        "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_completion_tokens\":80,\(many)}")
      let asked = try JSON(parsing: Array((upstream.requests.last?.body ?? "").utf8))
      #expect(
        asked["max_completion_tokens"] == .integer(50) && asked["max_tokens"] == nil && asked["p1999"] == .integer(1999)
      )
      _ = await servers.stop()
    }

    @Test("A user name that is not valid UTF-8 gets 403, so that two such names cannot become one user")
    func names() async throws {
      let sluice = try await Sluice(["SLUICE_AUTH": "", "SLUICE_TRUST_REMOTE_USER": "on"])
      // A shell sets the variable, because a Swift string cannot contain the invalid byte.
      let script = "REMOTE_USER=$(printf 'm\\374ller') exec \"$0\""
      let program = try Program(
        "/bin/sh", ["-c", script, releaseDirectory + "/sluice"],
        environment: [
          "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "GET", "REQUEST_URI": "/api/sessions",
          "SLUICE_TRUST_REMOTE_USER": "on", "SLUICE_STATE": sluice.directory + "/state",
        ])
      _ = await program.exitCode()
      #expect(program.output.hasPrefix("Status: 403"), "\(program.output) \(program.errors)")
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("An internal error is logged at level error, and a location can allow CORS requests with credentials")
    func operators() async throws {
      let site = try await Site(
        ["SLUICE_LOG": "error", "SLUICE_CORS_ORIGINS": "https://a.example"],
        location: "    fastcgi_param SLUICE_TRUST_REMOTE_USER on;")
      let user = site.sluice.directory + "/state/users/anonymous"
      try FileManager.default.createDirectory(atPath: user, withIntermediateDirectories: true)
      try "x".write(toFile: user + "/reports", atomically: true, encoding: .utf8)
      let output = try await site.request("/api/reports", nil, ["-H", "Origin: https://a.example"])
      #expect(output.status == 500 && output.field("Access-Control-Allow-Credentials") == "true", "\(output)")
      #expect(
        await eventually {
          site.sluice.program.log("request refused").contains { $0["error"] as? String == "internal" }
        })
      await site.stop()
    }
  }
}
