import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Confidentiality")
  struct ConfidentialityTests {
    @Test("No secret appears in a log, metric, error, process list or file, and only the owner can read files")
    func nowhere() async throws {
      let (key, userText, modelText) = ("sk-UPSTREAMKEY123", "WHATTHEUSERSAID", "WHATTHEMODELSAID")
      let upstream = try ScriptedUpstream { exchange in
        switch exchange.request.body {
        case let body where body.contains("fail"):
          exchange.respond("500 Oops", "{\"error\":{\"message\":\"\(key) \(userText)\",\"type\":\"bad\"}}")
        case let body where body.contains("cut"):
          exchange.sendHead()
          exchange.sendDelta(modelText)
        default: exchange.stream([modelText])
        }
      }
      let file = FileManager.default.temporaryDirectory.path + "/sluice-key-\(UUID().uuidString)"
      try key.write(toFile: file, atomically: true, encoding: .utf8)
      defer { try? FileManager.default.removeItem(atPath: file) }
      let servers = try await Servers([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_UPSTREAM_KEY_FILE": file, "SLUICE_LOG": "debug",
      ])
      var clientOutput = ""
      for word in ["ok", "fail", "cut"] {
        clientOutput += try await servers.post("/api/ai/report", "{\"input\":\"\(userText) \(word)\"}")
        clientOutput += try await servers.get(
          "/chat/stream?token=\(servers.token)&message=\(userText)+\(word)", token: ""
        )
        .replacingOccurrences(of: modelText, with: "")
      }
      clientOutput += try await servers.get("/chat/stream?token=wrong-\(servers.token)&message=\(userText)", token: "")
      clientOutput += try await servers.post("/api/chat", "{\"message\":5,\"x\":\"\(userText)\"}")
      clientOutput += try await servers.get("/metrics")
      let list = try Program("/usr/bin/env", ["ps", "axww", "-o", "args"])
      _ = await list.exitCode()
      let arguments = try String(contentsOfFile: "/proc/\(servers.pid)/cmdline", encoding: .utf8)
      #expect(upstream.requests.first?.head.contains("Authorization: Bearer \(key)") == true)

      let log = servers.demo.errors
      #expect(log.contains("stream ended"))
      for secret in [key, userText, modelText, servers.token] {
        #expect(!log.contains(secret), "\(secret) is in the log")
        #expect(!clientOutput.contains(secret), "\(secret) is in what a client received: \(clientOutput)")
        #expect(!arguments.contains(secret), "\(secret) is in the process list")
      }
      let files = FileManager.default.enumerator(atPath: servers.state)?.compactMap { $0 as? String } ?? []
      #expect(files.count > 3)
      for name in files {
        let path = servers.state + "/" + name
        var status = stat()
        #expect(unsafe stat(path, &status) == 0)
        #expect(status.st_mode & 0o777 == (status.st_mode & S_IFMT == S_IFDIR ? 0o700 : 0o600), "\(name)")
        if let text = try? String(contentsOfFile: path, encoding: .utf8) {
          #expect(!text.contains(key) && !text.contains(servers.token), "\(name)")
        }
      }
      _ = await servers.stop()
      #expect(!servers.demo.errors.contains(userText) && !servers.demo.errors.contains(servers.token))
    }

    @Test("A match split across deltas is redacted in streams, JSON, reports, replays, errors and the store")
    func redaction() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        let isReport = exchange.request.body.contains("assessment")
        if exchange.request.body.contains("ESCAPED") {
          exchange.sendDelta(#"{"ada\u0040example.org":["see ada\u0040example.org"]}"#, finishReason: "stop")
          return exchange.sendDone()
        }
        for delta in [isReport ? "{\"a\":\"" : "Ask ", "ad", "a@exa", "mple.o", "rg", isReport ? "\"}" : ", or call."] {
          exchange.sendDelta(delta)
          exchange.pause(.milliseconds(5))
        }
        if exchange.request.body.contains("CUT") { return }
        exchange.sendDelta("", finishReason: "stop")
        exchange.sendDone()
      }
      let file = FileManager.default.temporaryDirectory.path + "/sluice-redact-\(UUID().uuidString)"
      let pattern = #"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"#
      try "e-mail  \(pattern)  [e-mail]\n".write(toFile: file, atomically: true, encoding: .utf8)
      defer { try? FileManager.default.removeItem(atPath: file) }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_REDACT_FILE": file])
      let key = ["-H", "Idempotency-Key: k"]
      for dialect in ["events", "deltas", "chunks", "chat", "openai", "ui"] {
        let output = try await servers.post("/api/chat?dialect=\(dialect)", #"{"message":"x"}"#)
        #expect(output.contains("[e-mail]") && !output.contains("ada@") && !output.contains("exa"), "\(output)")
      }
      let streamed = try await servers.post("/api/chat", #"{"message":"x","sessionId":"s"}"#, key)
      #expect(streamed.events.compactMap { $0.json["t"]?.string }.joined() == "Ask [e-mail], or call.", "\(streamed)")
      let again = try await servers.post("/api/chat", #"{"message":"x","sessionId":"s"}"#, key)
      #expect(again.events.compactMap { $0.json["t"]?.string }.joined() == "Ask [e-mail], or call.", "\(again)")
      let jsonResponse = try await servers.post("/chat/message", #"{"message":"x"}"#)
      #expect(jsonResponse.json["message"] == "Ask [e-mail], or call.", "\(jsonResponse)")
      let report = try await servers.post("/api/ai/report", #"{"input":"x"}"#)
      #expect(report.json["report"] == ["a": "[e-mail]"], "\(report)")
      let escaped = try await servers.post("/api/ai/report", #"{"input":"ESCAPED","save":true}"#)
      #expect(escaped.json["report"] == ["[e-mail]": ["see [e-mail]"]], "\(escaped)")
      let saved = try await servers.get("/api/reports/\(escaped.json["reportId"]?.string ?? "")")
      #expect(saved.json["report"] == ["[e-mail]": ["see [e-mail]"]], "\(saved)")
      let cut = try await servers.post("/api/chat", #"{"message":"CUT"}"#)
      #expect(cut.contains("upstream_truncated") && !cut.contains("ada"), "\(cut)")
      #expect(servers.storedLines.count > 7)
      for line in servers.storedLines { #expect(!line.contains("ada@"), "\(line)") }

      // If the file is emptied or becomes invalid at run time, nothing is sent, because the text could not be redacted.
      try "".write(toFile: file, atomically: true, encoding: .utf8)
      #expect(try await servers.post("/api/chat", #"{"message":"x"}"#).errorCode == "internal")
      try "e-mail  (\n".write(toFile: file, atomically: true, encoding: .utf8)
      let refused = try await servers.post("/api/chat", #"{"message":"x"}"#)
      #expect(refused.status == 500 && refused.errorCode == "internal" && !refused.contains(file), "\(refused)")
      let check = try Program(
        releaseDirectory + "/sluice", ["--check"], environment: ["SLUICE_AUTH": "none", "SLUICE_REDACT_FILE": file])
      #expect(await check.exitCode() == 1)
      #expect(
        check.errors.contains("SLUICE_REDACT_FILE is invalid at line 1: missing closing parenthesis"),
        "\(check.errors)")
      _ = await servers.stop()
    }

    @Test("A report is redacted by the patterns in effect at its start, even if their file becomes invalid")
    func patternsBreak() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta(#"{"mail":"ada\u0040example.org","#)
        exchange.pause(.milliseconds(300))
        exchange.sendDelta(#""b":"ada@example.org"}"#, finishReason: "stop")
        exchange.sendDone()
      }
      let file = FileManager.default.temporaryDirectory.path + "/sluice-redact-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: file) }
      for broken in ["", "e-mail  (\n"] {
        try "e-mail  ada@[a-z.]{1,60}\n".write(toFile: file, atomically: true, encoding: .utf8)
        let sluice = try await Sluice(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_REDACT_FILE": file])
        let client = try FastCGIClient(path: sluice.socket)
        let body = Array(#"{"input":"x","save":true}"#.utf8)
        client.send(
          FastCGIClient.request(
            [
              ("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/api/ai/stream-report"),
              ("CONTENT_TYPE", "application/json"), ("CONTENT_LENGTH", "\(body.count)"), ("HTTP_IDEMPOTENCY_KEY", "k"),
            ], body: body))
        #expect(client.waitUntilReadable())
        try broken.write(toFile: file, atomically: true, encoding: .utf8)
        let text = client.readResponse().text
        let done = text.components(separatedBy: "event: done\n").last ?? ""
        #expect(done.contains("[redacted]") && !done.contains("example.org"), "\(text)")
        let files =
          FileManager.default.enumerator(atPath: sluice.directory + "/state")?.compactMap { $0 as? String } ?? []
        for name in files where name.contains("/reports/") && name.hasSuffix(".json") {
          let report = try String(contentsOfFile: sluice.directory + "/state/" + name, encoding: .utf8)
          #expect(report.contains("[redacted]") && !report.contains("example.org"), "\(report)")
        }
        // The replay is stored, but cannot be sent while the current patterns are invalid.
        #expect(files.contains { $0.contains("/replays/") })
        sluice.program.signal(SIGTERM)
        #expect(await sluice.program.exitCode() == 0)
      }
    }

    @Test("A token in a query appears in no nginx log, even on errors, and does not bypass other locations")
    func errorLog() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("a")
        exchange.waitUntilClosed(within: .seconds(20))
      }
      let site = try await Site(
        ["SLUICE_UPSTREAM_URL": upstream.baseURL],
        location: "    fastcgi_read_timeout 1s;\n    fastcgi_param SLUICE_HEARTBEAT 0;",
        server: "location = /api/chat { deny all; } location ^~ /api/auth/ { return 200 other; }",
        replacing: [("    fastcgi_read_timeout 620s;\n", "")])
      let body = site.sluice.directory + "/large"
      try String(repeating: "x", count: 3_000_000).write(toFile: body, atomically: true, encoding: .utf8)
      let large = ["-H", "Content-Type: application/json", "-d", "@\(body)"]
      for query in ["?token=TOKEN1", "?a=b&%74o%6Ben=TOKEN1", "?TOKEN=TOKEN1&token=TOKEN1"] {
        // The first request body is too large (413); the second response exceeds nginx's read timeout.
        #expect(try await site.request("/stream/" + query, nil, large).status == 413)
        #expect(try await site.request("/chat/stream" + query + "&message=x").contains("\"a\""))
        for path in ["/stream/", "/v1/", "/healthz"] { _ = try await site.request(path + query) }
        #expect(try await site.request("/api/chat" + query, #"{"message":"x"}"#).status == 403)
        #expect(try await site.request("/api/auth/verify" + query).body == "other")
      }
      site.sluice.program.signal(SIGKILL)
      _ = await site.sluice.program.exitCode()
      for path in ["/chat/stream", "/healthz", "/openapi.yaml"] {
        let output = try await site.request(
          path + "?token=TOKEN1&message=x", nil, ["-H", "Referer: http://a/?token=TOKEN1"])
        #expect(output.status == 502, "\(path): \(output)")
      }
      // Another location logs its refusals as usual, so those lines are excluded.
      let errors = site.nginx.errors.split(separator: "\n").filter {
        $0.contains("TOKEN1") && !$0.contains("/api/chat?")
      }
      #expect(errors.isEmpty, "\(errors)")
      await site.stop()
    }

    @Test("Heartbeats start with the request, have the form of the dialect, and are sent only when nothing else is")
    func heartbeats() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.pause(.milliseconds(700))
        exchange.stream(["a", "b", "c", "d", "e", "f"], gap: .milliseconds(60))
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_HEARTBEAT": "200ms"])
      for dialect in ["events", "deltas", "chunks", "chat", "openai", "ui"] {
        let curl = try servers.startPost("/api/chat?dialect=\(dialect)", #"{"message":"x"}"#)
        let body = await servers.output(of: curl).body
        let beat = dialect == "events" ? "event: heartbeat\ndata: {}\n\n" : ":\n"
        let count = body.components(separatedBy: dialect == "events" ? beat : "\n:\n").count - 1
        let before = body.components(separatedBy: "\"a\"")[0]
        #expect(before.contains(beat), "\(dialect): \(body)")
        #expect((2...3).contains(count + (body.hasPrefix(":\n") ? 1 : 0)), "\(dialect): \(body)")
      }
      _ = await servers.stop()
    }
  }
}
