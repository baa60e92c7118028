import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("API contract")
  struct ContractTests {
    private static let python = packageRoot + "/.build/python/bin/python"
    private static let directory = packageRoot + "/Tests/Contract"

    private func run(_ arguments: [String], _ servers: Servers, more: [String: String] = [:]) async throws {
      let environment = ["SLUICE_URL": servers.url, "SLUICE_TOKEN": servers.token].merging(more) { $1 }
      let program = try Program(Self.python, arguments, environment: environment)
      let code = await program.exitCode(within: .seconds(120))
      #expect(code == 0, "\(program.output)\(program.errors)")
    }

    @Test("The contract is valid, and every record of every dialect conforms to it")
    func records() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "5ms", "SLUICE_STREAMS_PER_USER": "0"])
      try await run([Self.directory + "/records.py"], servers)
      _ = await servers.stop()
      let model = try ScriptedUpstream.model()
      let agent = try await Servers(["SLUICE_UPSTREAM_URL": model.baseURL, "SLUICE_STREAMS_PER_USER": "0"])
      try await run([Self.directory + "/records.py"], agent, more: ["SLUICE_AGENT": "yes"])
      _ = await agent.stop()
    }

    @Test("The server conforms to the contract for generated requests")
    func schemathesis() async throws {
      let servers = try await Servers([
        "SLUICE_ECHO_GAP": "0", "SLUICE_STREAMS_PER_USER": "0", "SLUICE_MESSAGES_PER_HOUR": "0",
      ])
      try await run(
        [
          "-m", "schemathesis.cli", "--config-file", Self.directory + "/schemathesis.toml", "run",
          servers.url + "/openapi.yaml", "--header", "Authorization: Bearer \(servers.token)", "--max-examples", "20",
          // A generated number of seconds is up to 120; the doctor's own tests send this request.
          "--seed", "1", "--no-color", "--exclude-path", "/api/doctor/stream",
        ], servers, more: ["PYTHONPATH": Self.directory, "SCHEMATHESIS_HOOKS": "hooks"])
      #expect(kill(servers.pid, 0) == 0)
      _ = await servers.stop()
    }

    @Test("OpenAI's own client works with /v1, including its heartbeats")
    func sdk() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "30ms", "SLUICE_HEARTBEAT": "10ms"])
      try await run([Self.directory + "/sdk.py"], servers)
      #expect(await servers.outcomes(3) == ["completed", "completed", "disconnected"])
      #expect(servers.storedLines.isEmpty)
      _ = await servers.stop()
    }

    @Test("A server can be the upstream of another, which forwards parameters and returns text and errors")
    func chain() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["Hel", "lo 🎧"]) }
      let inner = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_HEARTBEAT": "50ms"])
      let key = FileManager.default.temporaryDirectory.path + "/sluice-key-\(UUID().uuidString)"
      try inner.token.write(toFile: key, atomically: true, encoding: .utf8)
      defer { try? FileManager.default.removeItem(atPath: key) }
      let outer = try await Servers(["SLUICE_UPSTREAM_URL": inner.url + "/v1", "SLUICE_UPSTREAM_KEY_FILE": key])
      let body =
        #"{"model":"m","messages":[{"role":"user","content":"Hi"}],"temperature":0.25,"stop":["x"],"stream":true}"#
      let output = await outer.output(of: try outer.startPost("/v1/chat/completions", body))
      let deltas = output.events.dropLast().compactMap { $0.json["choices"]?[0]?["delta"]?["content"]?.string }
      #expect(deltas.joined() == "Hello 🎧" && output.events.last?.data == "[DONE]", "\(output)")
      let asked = try #require(upstream.requests.first?.body)
      #expect(asked.contains(#""temperature":0.25,"stop":["x"]"#) && asked.contains(#""model":"m""#), "\(asked)")
      // Errors keep their meaning: an invalid request gets 400, and an unreachable inner server becomes 502.
      let refused = await outer.output(of: try outer.startPost("/v1/chat/completions", #"{"messages":[{"role":"x"}]}"#))
      #expect(refused.hasPrefix("HTTP/1.1 400 ") && refused.contains(#""type":"invalid_request_error""#), "\(refused)")
      _ = await inner.stop()
      let gone = await outer.output(of: try outer.chat("Hi"))
      #expect(gone.hasPrefix("HTTP/1.1 502 ") && gone.contains("upstream_error"), "\(gone)")
      _ = await outer.stop()
    }
  }
}
