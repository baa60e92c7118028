import Foundation
import SluiceTesting
import Testing

/// A llama-server and a model, which take too long to build and to fetch for every run.
private let llama = ProcessInfo.processInfo.environment["SLUICE_TEST_LLAMA"]?.split(separator: " ") ?? []

extension Integration {
  @Suite("Agents of other projects")
  struct AgentTests {
    private static let directory = packageRoot + "/Tests/Contract"
    /// OpenAI's client, in the version of the contract tests.
    private static let python = packageRoot + "/.build/python/bin/python"
    /// The other projects, which need an earlier one.
    private static let frameworks = packageRoot + "/.build/frameworks/bin"

    private func run(_ python: String, _ script: String, _ servers: Servers, more: [String: String] = [:]) async throws
    {
      let environment = [
        "SLUICE_URL": servers.url, "SLUICE_TOKEN": servers.token, "LITELLM_LOCAL_MODEL_COST_MAP": "True",
      ]
      let program = try Program(
        python, [Self.directory + "/" + script], environment: environment.merging(more) { $1 })
      let code = await program.exitCode(within: .seconds(120))
      #expect(code == 0, "\(program.output)\(program.errors)")
    }

    @Test("OpenAI's client runs tools in a loop, parses structured output, and reads images and log probabilities")
    func openAI() async throws {
      let model = try ScriptedUpstream.model()
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": model.baseURL])
      try await run(Self.python, "agents.py", servers)
      _ = await servers.stop()
    }

    @Test("A llama.cpp server says the same directly and through Sluice", .enabled(if: llama.count == 2))
    func llamaCpp() async throws {
      let port = try Loopback.freePort()
      let server = try Program(
        String(llama[0]),
        ["-m", String(llama[1]), "--host", "127.0.0.1", "--port", "\(port)", "--jinja", "-c", "4096", "-np", "2"])
      defer { kill(server.pid, SIGTERM) }
      #expect(await isReady("http://127.0.0.1:\(port)/health"), "\(server.errors)")
      let url = "http://127.0.0.1:\(port)/v1"
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": url])
      try await run(Self.python, "compare.py", servers, more: ["MODEL_URL": url])
      _ = await servers.stop()
    }

    private func isReady(_ url: String) async -> Bool {
      await eventually(within: .seconds(60)) {
        let check = try? Program("/usr/bin/curl", ["-sf", url])
        return await check?.exitCode(within: .seconds(10)) == 0
      }
    }

    @Test("LangChain, Pydantic-AI, instructor and LiteLLM run in their default modes")
    func defaultModes() async throws {
      let model = try ScriptedUpstream.model()
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": model.baseURL])
      try await run(Self.frameworks + "/python", "frameworks.py", servers)
      _ = await servers.stop()
    }

    @Test("LiteLLM's proxy is the client of one server and the upstream of another, and an agent notices neither")
    func proxy() async throws {
      let model = try ScriptedUpstream.model()
      let inner = try await Servers(["SLUICE_UPSTREAM_URL": model.baseURL])
      let directory = TemporaryDirectory()
      let port = try Loopback.freePort()
      let configuration = directory.file(
        "litellm.yaml",
        """
        model_list:
          - model_name: any
            litellm_params: { model: openai/any, api_base: "\(inner.url)/v1", api_key: "\(inner.token)", max_retries: 0 }
        general_settings: { master_key: sk-proxy }
        litellm_settings: { telemetry: false, num_retries: 0 }
        """)
      let proxy = try Program(
        Self.frameworks + "/litellm", ["--config", configuration, "--host", "127.0.0.1", "--port", "\(port)"],
        environment: ["LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONUNBUFFERED": "1"])
      defer { kill(proxy.pid, SIGTERM) }
      #expect(await isReady("http://127.0.0.1:\(port)/health/liveliness"), "\(proxy.output)\(proxy.errors)")
      let outer = try await Servers([
        "SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(port)/v1",
        "SLUICE_UPSTREAM_KEY_FILE": directory.file("key", "sk-proxy"),
      ])
      try await run(Self.python, "agents.py", outer, more: ["BEHIND_LITELLM": "yes"])
      _ = await outer.stop()
      _ = await inner.stop()
    }
  }
}
