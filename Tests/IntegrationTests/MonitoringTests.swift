import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Monitoring")
  struct MonitoringTests {
    private static let rules = packageRoot + "/systemd/prometheus-alerts.yml"

    private func run(_ path: String, _ arguments: [String], input: String? = nil) async throws -> (
      code: Int32?, text: String
    ) {
      let program = try Program(path, arguments, input: input)
      let code = await program.exitCode()
      return (code, program.output + program.errors)
    }

    /// The expressions of the alert rules without their thresholds, and those of the dashboard.
    private static func expressions() throws -> [String] {
      let rules = try String(contentsOfFile: rules, encoding: .utf8)
      let alerts = rules.split(separator: "\n").compactMap { line -> String? in
        guard let range = line.firstRange(of: "expr: ") else { return nil }
        return String(line[range.upperBound...].replacing(#/ (==|>) [0-9.]+$/#, with: ""))
      }
      let data = try Data(contentsOf: URL(fileURLWithPath: packageRoot + "/systemd/grafana-dashboard.json"))
      let dashboard = try JSONSerialization.jsonObject(with: data) as? [String: Any]
      let targets = (dashboard?["panels"] as? [[String: Any]] ?? []).flatMap { $0["targets"] as? [[String: Any]] ?? [] }
      let panels = targets.compactMap {
        ($0["expr"] as? String)?.replacingOccurrences(of: "$__rate_interval", with: "1m")
      }
      #expect(alerts.count == 7 && panels.count > 12)
      return alerts + panels
    }

    @Test("Every expression of the alert rules and of the dashboard has a result in Prometheus after a real run")
    func prometheus() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.keepsConnection = true
        if exchange.request.body.contains("fail") { return exchange.respond("401 Unauthorized", "{}") }
        if exchange.request.body.contains("cut") {
          exchange.sendHead()
          exchange.sendDelta("a")
          exchange.keepsConnection = false
          return
        }
        exchange.stream(["one ", "secret ", "two"], gap: .milliseconds(20))
      }
      let directory = TemporaryDirectory()
      let site = try await Site(
        [
          "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MODEL": "m", "SLUICE_MAX_STREAMS": "1",
          "SLUICE_MESSAGES_PER_HOUR": "0",
          "SLUICE_REDACT_FILE": directory.file("patterns", "a\"b\\c  secret\n"),
        ],
        server:
          "location = /metrics { fastcgi_pass unix:SOCKET; fastcgi_param REQUEST_METHOD GET; fastcgi_param REQUEST_URI /metrics; }"
      )
      func load() async throws {
        for message in ["a", "fail", "cut"] { _ = try await site.request("/api/chat", "{\"message\":\"\(message)\"}") }
        let count = site.sluice.program.log("stream started").count
        async let first = site.request("/api/doctor/stream?seconds=1")
        #expect(await eventually { site.sluice.program.log("stream started").count > count })
        let refused = try await site.request("/api/chat", #"{"message":"b"}"#)
        #expect(refused.contains("overloaded"), "\(refused)")
        _ = try await first
      }
      try await load()
      let scrape = try await site.request("/metrics").components(separatedBy: "\r\n\r\n").last ?? ""
      let check = try await run("/usr/bin/promtool", ["check", "metrics"], input: scrape)
      #expect(check.code == 0 && check.text.isEmpty, "\(check)")
      let checked = try await run("/usr/bin/promtool", ["check", "rules", Self.rules])
      #expect(checked.code == 0 && checked.text.contains("7 rules found"), "\(checked)")

      let port = try Loopback.freePort()
      let target = site.url.replacingOccurrences(of: "http://", with: "")
      let configuration = directory.file(
        "prometheus.yml",
        """
        global: { scrape_interval: 1s }
        rule_files: [\(Self.rules)]
        scrape_configs: [{ job_name: sluice, static_configs: [{ targets: ["\(target)"] }] }]
        """)
      let server = try Program(
        "/usr/bin/prometheus",
        [
          "--config.file=\(configuration)", "--storage.tsdb.path=\(directory.path)/data",
          "--web.listen-address=127.0.0.1:\(port)",
        ])
      func result(_ expression: String) async throws -> String {
        try await run("/usr/bin/promtool", ["query", "instant", "http://127.0.0.1:\(port)", expression]).text
      }
      #expect(try await eventually { try await result("up").contains("=> 1 ") }, "\(server.errors)")
      // Rates need several scrapes, with a difference between them.
      for _ in 0..<2 { try await load() }
      #expect(
        try await eventually { try await result("count_over_time(up[1m]) > 3").contains("=>") }, "\(server.errors)")
      for expression in try Self.expressions() {
        var text = ""
        let isFound = try await eventually {
          text = try await result(expression)
          return text.contains("=>") && !text.contains("NaN")
        }
        #expect(isFound, "\(expression): \(text)")
      }
      server.signal(SIGTERM)
      _ = await server.exitCode()
      await site.stop()
    }
  }
}
