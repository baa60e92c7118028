import EventLoop
import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Benchmark")
  struct BenchmarkTests {
    /// Runs one leg against a site, and returns its figures.
    private func figures(_ arguments: [String]) async throws -> [String: Any] {
      let port = try Loopback.freePort()
      let site = try await Site(["SLUICE_UPSTREAM_URL": "http://127.0.0.1:\(port)/v1"])
      let load = try Program(
        releaseDirectory + "/sluice-bench",
        arguments + [
          "--port", String(site.url.split(separator: ":")[2]), "--upstream-port", "\(port)", "--pids",
          "nginx=\(site.nginx.pid),backend=\(site.sluice.program.pid)",
        ])
      let code = await load.exitCode(within: .seconds(60))
      try #require(code == 0, "\(load.output)\(load.errors)")
      let json = try JSONSerialization.jsonObject(with: Data(load.output.utf8)) as? [String: Any]
      return try #require(json, "\(load.output)")
    }

    @Test(
      "Each scenario measures a running server and reports no failure",
      arguments: [
        (["steady", "--streams", "9", "--rate", "50", "--seconds", "1", "--tokens", "20"], "backendCPUPerToken"),
        (["requests", "--requests", "20"], "backendCPUPerRequest"),
        (["flat", "--tokens", "20000"], "tokensPerSecond"),
        (["disconnect", "--streams", "5", "--rate", "20"], "closedAfterMs"),
      ])
    func scenarios(arguments: [String], figure: String) async throws {
      let figures = try await figures(arguments)
      #expect(figures["failures"] as? Double == 0 && figures["failure"] as? String == "", "\(figures)")
      #expect((figures[figure] as? Double ?? 0) > 0, "\(figures)")
    }

    @Test("The command lists its scenarios, and names the allowed ones for an unknown scenario or peer")
    func command() async throws {
      let list = try Program(packageRoot + "/Tests/bench", ["--list"])
      #expect(await list.exitCode() == 0 && list.output.contains("tokens-1000"), "\(list.output)\(list.errors)")
      for option in ["--only", "--peers"] {
        let wrong = try Program(packageRoot + "/Tests/bench", [option, "nonsense"])
        #expect(await wrong.exitCode() == 1 && wrong.errors.contains("\(option) takes "), "\(wrong.errors)")
      }
    }
  }
}
