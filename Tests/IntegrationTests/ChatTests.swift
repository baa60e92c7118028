import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Chat behind nginx")
  struct ChatTests {
    @Test("A chat response is streamed word by word, ends with one done record, and is stored as one line")
    func echo() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "100ms"])
      let curl = try servers.chat("one two three four five six")
      let output = await servers.output(of: curl)
      #expect(output.hasPrefix("HTTP/1.1 200 OK\r\n"), "\(output)")
      #expect(output.contains("Content-Type: text/event-stream; charset=utf-8\r\n"))
      #expect(output.contains("Sluice-Stream-Id: "))
      #expect(output.contains("event: token\ndata: {\"t\":\"one \"}\n\nevent: token\ndata: {\"t\":\"two \"}\n\n"))
      #expect(output.components(separatedBy: "event: done\n").count == 2)
      // The words arrive one by one over the duration of the echo, not together at the end.
      let times = curl.chunks.filter { String(decoding: $0.bytes, as: UTF8.self).contains("event: token") }.map(\.at)
      #expect(times.count >= 5, "\(curl.chunks.count) chunks")
      if let first = times.first, let last = times.last { #expect(last - first > .milliseconds(300)) }

      let lines = servers.storedLines
      #expect(lines.count == 1)
      let turn = try #require(JSONSerialization.jsonObject(with: Data((lines.first ?? "").utf8)) as? [String: Any])
      #expect((turn["assistant"] as? [String: String]) == ["content": "one two three four five six"])
      let done = try #require(output.components(separatedBy: "event: done\ndata: ").last)
      #expect(done.contains(try #require(turn["id"] as? String)))

      #expect(await servers.outcomes(1) == ["completed"])
      let end = try #require(servers.demo.log("stream ended").first)
      #expect(end["deltas"] as? Int == 6 && end["user"] as? String == "demo" && end["route"] as? String == "/api/chat")
      #expect((end["correlationId"] as? String)?.count == 32)
      #expect(await servers.stop() == 0)
    }

    @Test("A request without a valid token gets 401 and never reaches the model")
    func unauthorized() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["a"]) }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let output = await servers.output(of: try servers.chat("Hi", token: "wrong"))
      #expect(
        output.hasPrefix("HTTP/1.1 401 Unauthorized\r\n") && output.contains("WWW-Authenticate: Bearer\r\n"),
        "\(output)")
      #expect(output.contains(#""code":"unauthorized""#))
      #expect(upstream.requests.isEmpty && servers.storedLines.isEmpty)
      _ = await servers.stop()
    }

    @Test("Deltas arrive at the pace of the upstream, and the next prompt includes the session's earlier turns")
    func upstream() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["Hel", "lo ", "🎧"], gap: .milliseconds(100)) }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let first = try servers.chat("Hi", more: ",\"sessionId\":\"s-1\"")
      #expect(await servers.output(of: first).contains("event: done"))
      #expect(first.chunks.count >= 3, "\(first.chunks.count) chunks")
      _ = await servers.output(of: try servers.chat("And?", more: ",\"sessionId\":\"s-1\""))
      let body = try #require(upstream.requests.last?.body)
      #expect(
        body.contains(
          #"[{"content":"Hi","role":"user"},{"content":"Hello 🎧","role":"assistant"},{"content":"And?","role":"user"}]"#
        )
          || body.contains(
            #"[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello 🎧"},{"role":"user","content":"And?"}]"#
          ),
        "\(body)")
      #expect(servers.storedLines.count == 2)
      _ = await servers.stop()
    }

    @Test("The response is one JSON object if the client requests it or the feature flag is off")
    func jsonResponse() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "1ms"])
      let output = await servers.output(of: try servers.chat("Hi there", more: ",\"stream\":false,\"sessionId\":7"))
      #expect(
        output.contains("Content-Type: application/json\r\n")
          && output.contains(#""sessionId":"7","message":"Hi there"}"#), "\(output)")
      _ = await servers.stop()
      let off = try await Servers(["SLUICE_ECHO_GAP": "1ms", "SLUICE_STREAM_CHAT": "off"])
      #expect(await off.output(of: try off.chat("Hi there")).contains(#""message":"Hi there"}"#))
      #expect(off.storedLines.count == 1)
      _ = await off.stop()
    }

    @Test(
      "A disconnect before or after the first token stops generation, and nothing is stored",
      arguments: [false, true])
    func disconnected(afterToken: Bool) async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        if afterToken { exchange.sendDelta("Hel") }
        exchange.waitUntilClosed()
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL])
      let curl = try servers.chat("Hi")
      #expect(await eventually { afterToken ? curl.output.contains("Hel") : !upstream.requests.isEmpty })
      curl.signal(SIGKILL)
      #expect(await eventually { !upstream.closeTimes.isEmpty })
      #expect(await servers.outcomes(1) == ["disconnected"])
      #expect(servers.storedLines.isEmpty)
      _ = await servers.stop()
    }

    @Test("A stopped stream ends with one cancelled record, and only its own user can stop it")
    func stopped() async throws {
      let file = try await TokensFile("other")
      let servers = try await Servers(["SLUICE_ECHO_GAP": "20ms", "SLUICE_TOKENS_FILE": file.path])
      let curl = try servers.chat(String(repeating: "word ", count: 500))
      #expect(await eventually { curl.output.contains("event: token") })
      let id = try #require(
        curl.output.components(separatedBy: "Sluice-Stream-Id: ").last?.prefix { $0 != "\r\n" }.description)
      let theirs = await servers.output(
        of:
          try servers.curl("/api/streams/\(id)", ["-X", "DELETE"], token: file.tokens[0]))
      #expect(theirs.hasPrefix("HTTP/1.1 404"), "\(theirs)")
      let mine = await servers.output(of: try servers.curl("/api/streams/\(id)", ["-X", "DELETE"]))
      #expect(mine.hasPrefix("HTTP/1.1 204"), "\(mine)")
      #expect(await servers.output(of: curl).hasSuffix("event: cancelled\ndata: {\"reason\":\"stopped\"}\n\n"))
      #expect(await servers.outcomes(1) == ["stopped"])
      #expect(servers.storedLines.isEmpty)
      _ = await servers.stop()
    }

    @Test("A killed server sends no terminal record and stores nothing, and serves requests after a restart")
    func killed() async throws {
      let state = FileManager.default.temporaryDirectory.path + "/sluice-state-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: state) }
      let servers = try await Servers(["SLUICE_ECHO_GAP": "50ms"], state: state)
      let curl = try servers.chat(String(repeating: "word ", count: 100))
      #expect(await eventually { curl.output.contains("event: token") })
      kill(servers.pid, SIGKILL)
      let output = await servers.output(of: curl)
      for record in ["event: done", "event: error", "event: cancelled"] { #expect(!output.contains(record)) }
      #expect(servers.storedLines.isEmpty)
      _ = await servers.stop()
      let again = try await Servers(["SLUICE_ECHO_GAP": "1ms"], state: state)
      #expect(await again.output(of: try again.chat("Hi")).contains("event: done"))
      #expect(again.storedLines.count == 1)
      _ = await again.stop()
    }

    @Test("An invalid request gets an error that names what was expected")
    func badRequests() async throws {
      let servers = try await Servers(["SLUICE_MAX_MESSAGE": "10", "SLUICE_MAX_BODY": "1000"])
      let json = ["-H", "Content-Type: application/json", "-d"]
      let cases: [([String], String, String)] = [
        (json + ["{\"message\":5}"], "400", "message"), (json + ["{}"], "400", "message"),
        (json + ["[1]"], "400", "JSON object"), (json + ["{"], "400", "not valid JSON"),
        (json + ["{\"message\":\"a\",\"sessionId\":\"../x\"}"], "400", "sessionId"),
        (json + ["{\"message\":\"a\",\"stream\":1}"], "400", "stream"),
        (json + ["{\"message\":\"12345678901\"}"], "413", "message"),
        (json + ["{\"message\":\"\(String(repeating: "a", count: 2000))\"}"], "413", "1000 bytes"),
        (["-d", "message=a"], "415", "application/json"), (["-X", "PUT"], "405", "POST"),
      ]
      for (arguments, status, part) in cases {
        let output = await servers.output(of: try servers.curl("/api/chat", arguments))
        #expect(output.hasPrefix("HTTP/1.1 \(status) ") && output.contains(part), "\(arguments): \(output)")
      }
      let missing = await servers.output(of: try servers.curl("/api/none"))
      #expect(missing.hasPrefix("HTTP/1.1 404 "))
      _ = await servers.stop()
    }
  }
}
