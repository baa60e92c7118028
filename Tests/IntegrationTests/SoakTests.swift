import EventLoop
import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Soak")
  struct SoakTests {
    /// The number of streams, 6000 by default. For 100,000: `SLUICE_SOAK=100000 Tests/run --filter SoakTests`.
    private static let streams = ProcessInfo.processInfo.environment["SLUICE_SOAK"].flatMap { Int($0) } ?? 6000

    @Test("Short streams that end in every possible way leak no descriptors, streams or memory")
    func soak() async throws {
      let upstream = try ScriptedUpstream(recordsRequests: false) { exchange in
        let body = exchange.request.body
        if body.contains("refuse") { return exchange.respond("503 No", "{}") }
        if body.contains("close") { return }
        if body.contains("silent") {
          exchange.waitUntilClosed()
          return
        }
        exchange.sendHead()
        exchange.sendDelta("Hel")
        if body.contains("cut") { return }
        if body.contains("reset") { return exchange.reset() }
        if body.contains("malformed") { exchange.send("data: {\n\n") }
        if body.contains("hang") { exchange.waitUntilClosed() }
        exchange.sendDelta("lo", finishReason: "stop")
        exchange.sendDone()
      }
      let sluice = try await Sluice([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_STREAMS_PER_USER": "0", "SLUICE_MESSAGES_PER_HOUR": "0",
        "SLUICE_LOG": "error",
      ])
      func health() throws -> String {
        let client = try FastCGIClient(path: sluice.socket)
        client.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/healthz")]))
        return client.readResponse().text
      }
      let expected = [
        "complete": "event: done", "refuse": "upstream_error", "close": "upstream_error", "malformed": "upstream_error",
      ]
      let ways = ["complete", "complete", "complete", "refuse", "close", "silent", "cut", "reset", "malformed", "hang"]
      let seed = UInt64(Date().timeIntervalSince1970)
      var random = SeededGenerator(seed: seed)
      func round(_ count: Int) throws {
        for _ in 0..<(count / 20) {
          var clients: [(way: String, client: FastCGIClient)] = []
          for _ in 0..<20 {
            let way = ways.randomElement(using: &random) ?? "complete"
            // The streams share 50 sessions, because a directory of 100,000 files is not the subject of this test.
            clients.append((way, try sluice.chat(way, session: "s\(Int.random(in: 0..<50, using: &random))")))
          }
          for (way, client) in clients {
            switch way {
            case "silent": break
            case "hang": _ = client.waitUntilReadable()
            case _ where Int.random(in: 0..<4, using: &random) == 0: break
            default:
              let text = client.readResponse().text
              let expected = expected[way] ?? "upstream_truncated"
              #expect(text.contains(expected), "seed \(seed), \(way): \(text)")
            }
          }
        }
      }
      try round(1000)
      let isCalm = try await eventually { try health().contains("\"streams\":0") }
      #expect(isCalm)
      let (before, open) = (sluice.memory, sluice.descriptors)
      try round(Self.streams)
      #expect(try await eventually { try health().contains("\"streams\":0") }, "seed \(seed)")
      let areBack = await eventually { sluice.descriptors <= open + 8 }
      #expect(areBack, "seed \(seed): \(open) descriptors before, \(sluice.descriptors) after")
      #expect(sluice.memory < before + 8192, "seed \(seed): \(before) KiB before, \(sluice.memory) after")
      print(
        "soak: \(Self.streams) streams, \(before) KiB before, \(sluice.memory) after;", open, "descriptors, then",
        sluice.descriptors)
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }
  }
}
