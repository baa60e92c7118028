import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Streams that are read again, through nginx")
  struct ResumeTests {
    /// A model that sends a number every 50 ms until the peer closes.
    private static func endless() throws -> ScriptedUpstream {
      try ScriptedUpstream { exchange in
        exchange.sendHead()
        for number in 0..<10_000 where exchange.isOpen {
          exchange.sendDelta("\(number) ")
          if exchange.waitUntilClosed(within: .milliseconds(50)) { return }
        }
      }
    }

    @Test(
      "A killed client that comes back after a second gets the rest; the model is asked once, and one turn is stored")
    func comesBack() async throws {
      let upstream = try ScriptedUpstream { $0.stream((0..<40).map { "\($0) " }, gap: .milliseconds(50)) }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_RESUME": "5s"])
      let first = try servers.chat("go")
      #expect(await eventually { first.output.contains("\"3 \"") })
      first.signal(SIGKILL)
      _ = await first.exitCode()
      let stream = try #require(first.output.field("Sluice-Stream-Id"))
      let received = first.output.events.filter { $0.type == "token" }
      try await Task.sleep(for: .seconds(1))
      let rest = try await servers.get(
        "/api/streams/\(stream)", ["-H", "Last-Event-ID: \(stream).\(received.count)"])
      let texts = (received + rest.events).compactMap { $0.json["t"]?.string }
      #expect(texts == (0..<40).map { "\($0) " }, "\(rest)")
      #expect(rest.events.last?.type == "done" && rest.contains("id: \(stream).end\nevent: done\n"), "\(rest)")
      #expect(upstream.requests.count == 1 && servers.storedLines.count == 1)
      #expect(await servers.outcomes(1) == ["completed"])
      #expect(try await servers.metric("sluice_resumed_total") == 1)
      _ = await servers.stop()
    }

    @Test("A client that does not come back ends the model's stream when its time has run out, and nothing is stored")
    func staysAway() async throws {
      let upstream = try Self.endless()
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_RESUME": "2s"])
      let first = try servers.chat("go")
      #expect(await eventually { first.output.contains("\"3 \"") })
      let stream = try #require(first.output.field("Sluice-Stream-Id"))
      first.signal(SIGKILL)
      _ = await first.exitCode()
      let left = ContinuousClock.now
      #expect(await eventually { upstream.closeTimes.count == 1 })
      let waited = upstream.closeTimes.first.map { $0 - left } ?? .zero
      #expect(waited > .milliseconds(1900), "closed after \(waited)")
      #expect(await servers.outcomes(1) == ["disconnected"])
      #expect(servers.storedLines.isEmpty)
      #expect(try await servers.get("/api/streams/\(stream)").status == 404)
      #expect(try await servers.metric("sluice_transcript_bytes") == 0)
      _ = await servers.stop()
    }

    @Test("Readers on several event loops receive the same stream, and another user none of it")
    func loops() async throws {
      let tokens = try await TokensFile("other")
      let servers = try await Servers([
        "SLUICE_LOOPS": "2", "SLUICE_RESUME": "5s", "SLUICE_ECHO_GAP": "50ms", "SLUICE_TOKENS_FILE": tokens.path,
      ])
      let words = (0..<20).map { "\($0)" }.joined(separator: " ")
      let first = try servers.chat(words, more: ",\"sessionId\":\"s\"")
      #expect(await eventually { first.output.contains("token") })
      let readers = try (0..<6).map { _ in try servers.curl("/api/sessions/s/stream?dialect=chunks") }
      #expect(try await servers.get("/api/sessions/s/stream", token: tokens.tokens[0]).status == 404)
      let stream = try #require(first.output.field("Sluice-Stream-Id"))
      #expect(try await servers.get("/api/streams/\(stream)", token: tokens.tokens[0]).status == 404)
      for reader in readers {
        let events = await servers.output(of: reader).events
        #expect(events.compactMap { $0.json["token"]?.string }.joined() == words, "\(events)")
        #expect(events.last?.type == "complete" && events.last?.json["seq"] == .integer(20))
      }
      #expect(await servers.output(of: first).events.last?.type == "done")
      _ = await servers.stop()
    }

    @Test("A stream without a client is finished and stored at SIGTERM")
    func drain() async throws {
      let servers = try await Servers(["SLUICE_RESUME": "30s", "SLUICE_ECHO_GAP": "50ms"])
      let first = try servers.chat((0..<20).map { "\($0)" }.joined(separator: " "))
      #expect(await eventually { first.output.contains("token") })
      first.signal(SIGKILL)
      _ = await first.exitCode()
      kill(servers.pid, SIGTERM)
      #expect(await servers.outcomes(1) == ["completed"])
      #expect(servers.storedLines.count == 1)
      _ = await servers.stop()
    }

    @Test(
      "Streams that are cut three times at any byte and resumed lose and double nothing, and leave nothing behind",
      arguments: [("http", 1000), ("websocket", 300)])
    func manyStreams(transport: String, count: Int) async throws {
      let servers = try await Servers([
        "SLUICE_RESUME": "3s", "SLUICE_ECHO_GAP": "40ms", "SLUICE_STREAMS_PER_USER": "0",
        "SLUICE_MESSAGES_PER_HOUR": "0", "SLUICE_LOG": "warning",
      ])
      let before = servers.descriptors
      let python = try Program(
        packageRoot + "/.build/python/bin/python",
        [packageRoot + "/Tests/Contract/resume.py", transport, "\(count)"],
        environment: ["SLUICE_URL": servers.url, "SLUICE_TOKEN": servers.token])
      #expect(await python.exitCode(within: .seconds(120)) == 0, "\(python.output) \(python.errors)")
      for metric in [
        "sluice_streams_open", "sluice_generations_detached", "sluice_transcript_bytes", "sluice_websockets_open",
      ] {
        #expect(try await eventually { try await servers.metric(metric) == 0 }, "\(metric)")
      }
      #expect(servers.storedLines.count == count)
      #expect(try await servers.metric("sluice_resumed_total") ?? 0 > count)
      #expect(await eventually { servers.descriptors <= before + 4 }, "\(before) \(servers.descriptors)")
      _ = await servers.stop()
    }
  }
}
