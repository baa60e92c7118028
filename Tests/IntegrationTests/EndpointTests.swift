import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Endpoints behind nginx")
  struct EndpointTests {
    @Test("Every endpoint streams in its own dialect, or in the requested one")
    func dialects() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms"])
      let own: [(String, String?, [String])] = [
        ("/api/chat", #"{"message":"a b"}"#, ["token", "token", "done"]),
        ("/stream/", #"{"content":"a b","chat_id":"c"}"#, ["message", "message", "message", "message"]),
        ("/chat/stream?message=a+b", nil, ["message", "message", "message"]),
        ("/chat/onboarding-stream?message=a+b", nil, ["message", "message", "message"]),
        ("/api/stream/ai-block/diagram?input=a%20b", nil, ["chunk", "chunk", "complete"]),
        ("/api/stream/ai-block/quiz", #"{"input":"a b"}"#, ["chunk", "chunk", "complete"]),
        ("/api/ai/stream-report", #"{"input":"{} b"}"#, ["token", "token", "done"]),
        (
          "/v1/chat/completions", #"{"messages":[{"role":"user","content":"a b"}],"stream":true}"#,
          ["message", "message", "message", "message", "message"]
        ),
      ]
      for (path, body, types) in own {
        let output = try await body == nil ? servers.get(path) : servers.post(path, body ?? "")
        #expect(output.status == 200 && output.events.map(\.type) == types, "\(path): \(output)")
        #expect(output.field("Content-Type") == "text/event-stream; charset=utf-8", "\(path)")
        #expect(output.field("Sluice-Stream-Id")?.count == 36, "\(path)")
        let chosen = path + (path.contains("?") ? "&" : "?") + "dialect=ui"
        let other = try await body == nil ? servers.get(chosen) : servers.post(chosen, body ?? "")
        #expect(other.field("x-vercel-ai-ui-message-stream") == "v1", "\(path)")
        let parts = other.events.dropLast().compactMap { $0.json["type"]?.string }
        #expect(parts.prefix(3) == ["start", "text-start", "text-delta"], "\(path): \(other)")
        #expect(parts.contains("text-end") && parts.last == "finish", "\(path): \(other)")
        #expect(other.events.last?.data == "[DONE]" && other.events.first?.json["type"] == "start", "\(path): \(other)")
      }
      let unknown = try await servers.get("/chat/stream?message=a&dialect=morse")
      #expect(unknown.status == 400 && unknown.contains("events, deltas, chunks, chat, openai, ui"), "\(unknown)")
      _ = await servers.stop()
    }

    @Test("All conversation endpoints share one history, whatever their field names")
    func conversations() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms"])
      let first = try await servers.post("/messages/", #"{"content":"one","chat_id":7}"#).json
      #expect(first["role"] == "assistant" && first["content"] == "one" && first["chat_id"] == "7", "\(first)")
      let second = try await servers.post("/chat/message", #"{"message":"two","session_id":"7"}"#).json
      #expect(second["message"] == "two" && second["session_id"] == "7", "\(second)")
      let third = try await servers.post("/api/chat", #"{"message":"three","sessionId":"7","stream":false}"#).json
      let messages = try await servers.get("/messages/?chat_id=7").json["messages"] ?? .null
      #expect((0..<6).map { messages[$0]?["content"]?.string } == ["one", "one", "two", "two", "three", "three"])
      #expect(messages[5]?["id"] == third["messageId"] && messages[4]?["role"] == "user", "\(messages)")

      let newest = try await servers.get("/api/sessions/7?limit=1").json["turns"] ?? .null
      #expect(newest.count == 1 && newest[0]?["id"] == third["messageId"])
      let before = newest[0]?["id"]?.string ?? ""
      let older = try await servers.get("/api/sessions/7?limit=1&before=\(before)").json["turns"] ?? .null
      #expect(older.count == 1 && older[0]?["id"] == second["message_id"], "\(older)")
      #expect(older[0]?["user"]?["content"] == "two" && older[0]?["assistant"]?["content"] == "two")
      let page = try await servers.get("/messages/?chat_id=7&before=\(before)-user").json["messages"] ?? .null
      #expect(page.count == 4 && page[3]?["content"] == "two", "\(page)")

      _ = try await servers.get("/chat/stream?message=hi&session_id=other")
      let sessions = try await servers.get("/api/sessions").json["sessions"] ?? .null
      #expect(
        sessions.count == 2 && sessions[0]?["id"] == "other" && sessions[1]?["turns"] == .integer(3), "\(sessions)")
      let rest = try await servers.get("/api/sessions?before=other").json["sessions"] ?? .null
      #expect(rest.count == 1 && rest[0]?["id"] == "7")
      #expect(try await servers.get("/api/sessions/7", ["-X", "DELETE"]).status == 204)
      #expect(try await servers.get("/api/sessions/7").errorCode == "not_found")
      #expect(try await servers.get("/api/sessions/7", ["-X", "DELETE"]).status == 404)
      #expect(try await servers.get("/messages/?chat_id=7").json == ["messages": []])
      for query in ["limit=0", "limit=201", "limit=x", "before=..", "before="] {
        #expect(try await servers.get("/api/sessions?\(query)").status == 400, "\(query)")
      }
      _ = await servers.stop()
    }

    @Test("A report is parsed strictly from the model's output and is stored only if it is valid")
    func reports() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0"])
      let text = #"{\"b\":[1,2.50,1e400],\"a\":\"ü\"}"#
      for modelOutput in [
        text, "\u{FEFF} \\n" + text, "```json\\n\(text)\\n```", "Here [1] it is: \(text) I hope {it} helps",
      ] {
        let output = try await servers.post("/api/ai/stream-report", "{\"input\":\"\(modelOutput)\"}")
        #expect(output.events.last?.type == "done", "\(output)")
        // Numbers and member order are exactly those of the model's output.
        #expect(output.events.last?.data.contains(#""report":{"b":[1,2.50,1e400],"a":"ü"}"#) == true, "\(output)")
      }
      for modelOutput in ["", "no", #"[{\"a\":1}]"#, #"{\"a\":1,}"#, #"{\"a\":1"#, "{'a':1}", #"{\"a\":01}"#, #"{} {"#]
      where modelOutput != "" {
        let output = try await servers.post("/api/ai/report", "{\"input\":\"\(modelOutput)\",\"save\":true}")
        #expect(
          modelOutput == "{} {" ? output.status == 200 : output.errorCode == "parse_error", "\(modelOutput): \(output)")
      }
      let saved = try await servers.post("/api/ai/report", "{\"input\":\"\(text)\",\"save\":true,\"title\":\"T\"}")
        .json
      let id = try #require(saved["reportId"]?.string)
      let read = try await servers.get("/api/reports/\(id)")
      #expect(
        read.body.contains(#""title":"T","at":""#) && read.body.contains(#""report":{"b":[1,2.50,1e400],"a":"ü"}}"#))
      let added = try await servers.post("/api/reports", #"{"report":{"x":1}}"#)
      #expect(added.status == 201)
      let list = try await servers.get("/api/reports").json["reports"] ?? .null
      #expect(list.count == 3 && list[0]?["id"] == added.json["id"] && list[1]?["title"] == "T", "\(list)")
      #expect(list[0]?["title"] == .null && list[0]?["report"] == nil)
      let page = try await servers.get("/api/reports?limit=1&before=\(id)").json["reports"] ?? .null
      #expect(page.count == 1 && page[0]?["title"] == .null)
      for body in ["{}", #"{"report":[]}"#, #"{"report":"{}"}"#, #"{"report":{},"title":5}"#] {
        #expect(try await servers.post("/api/reports", body).errorCode == "bad_request", "\(body)")
      }
      for path in ["none", "..", "%2e%2e%2fonboarding"] {
        #expect(try await servers.get("/api/reports/\(path)", ["--path-as-is"]).status != 200, "\(path)")
      }
      _ = await servers.stop()
    }

    @Test("A report truncated by the token limit gets parse_error and is not stored, even if it looks complete")
    func cutReport() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("{\"a\":1}", finishReason: "length")
        exchange.sendDone()
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let output = try await servers.post("/api/ai/stream-report", #"{"input":"x","save":true}"#)
      #expect(output.events.last?.type == "error" && output.contains("parse_error"), "\(output)")
      #expect(try await servers.get("/api/reports").json == ["reports": []])
      #expect(await servers.outcomes(1) == ["parse_error"])
      // The model received the prompt for reports.
      #expect(upstream.requests.first?.body.contains("You write assessment reports.") == true)
      _ = await servers.stop()
    }

    @Test("HEAD works wherever GET does, OPTIONS works on every path, and Allow lists the methods")
    func methods() async throws {
      let servers = try await Servers()
      let head = try await servers.get("/chat/stream?message=x", ["-I"])
      #expect(
        head.status == 200 && head.field("Content-Type")?.hasPrefix("text/event-stream") == true && head.body == "")
      #expect(try await servers.get("/chat/stream", ["-I"]).status == 400)
      #expect(try await servers.get("/healthz", ["-I"]).field("Content-Length") != nil)
      #expect(try await servers.get("/api/chat", ["-X", "OPTIONS"]).field("Allow") == "POST, OPTIONS")
      #expect(
        try await servers.get("/messages/", ["-X", "OPTIONS"], token: "none").field("Allow")
          == "POST, GET, HEAD, OPTIONS")
      #expect(try await servers.get("/api/none", ["-X", "OPTIONS"]).status == 404)
      let put = try await servers.get("/api/sessions/x", ["-X", "PUT"])
      #expect(
        put.status == 405 && put.field("Allow") == "GET, HEAD, DELETE, OPTIONS" && put.errorCode == "method_not_allowed"
      )
      #expect(await servers.outcomes(0).isEmpty)
      _ = await servers.stop()
    }

    @Test("Metrics contain the counts, and the configuration of a site does not serve them")
    func metrics() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms"])
      _ = try await servers.post("/api/chat", #"{"message":"a b"}"#)
      _ = try await servers.post("/api/chat", #"{"message":""}"#)
      _ = try await servers.get("/api/nowhere?token=secret")
      #expect(await eventually { servers.demo.log("request refused").count == 2 })
      let refusals = servers.demo.log("request refused")
      #expect(refusals.map { $0["path"] as? String ?? $0["route"] as? String } == ["/api/chat", "/api/nowhere"])
      #expect(servers.demo.log("stream ended").first?["finishReason"] as? String == "stop")
      let text = try await servers.get("/metrics", token: "none")
      for line in [
        #"sluice_streams_total{route="/api/chat",outcome="completed"} 1"#,
        #"sluice_refusals_total{code="bad_request",cause=""} 1"#,
        "sluice_streams_open 0", "sluice_deltas_total 2", "sluice_first_token_seconds_count 1",
        #"sluice_store_writes_total{result="ok"} 1"#, "sluice_unsaved 0",
        #"sluice_build_info{version="0.1.0"} 1"#,
      ] { #expect(text.contains("\n" + line + "\n"), "\(line) in \(text)") }
      for name in ["resident_memory_bytes", "open_fds", "max_fds", "cpu_seconds_total"] {
        let value = try await servers.metric("process_" + name) ?? text.range(of: "process_\(name) 0.").map { _ in 1 }
        #expect((value ?? 0) > 0, "\(name) in \(text)")
      }
      let configuration = try String(contentsOfFile: packageRoot + "/nginx/sluice.conf", encoding: .utf8)
      #expect(!configuration.contains("metrics"))
      _ = await servers.stop()
    }
  }
}
