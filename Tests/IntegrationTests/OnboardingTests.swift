import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Onboarding behind nginx")
  struct OnboardingTests {
    @Test("Each completed stream advances onboarding in prompt file order, and the prompt contains the step")
    func steps() async throws {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-prompts-\(UUID().uuidString)"
      try FileManager.default.createDirectory(atPath: directory + "/blocks", withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      try "Be kind.\n# name\nAsk the name.\n\n# goal\nAsk the goal.\n".write(
        toFile: directory + "/onboarding.txt", atomically: true, encoding: .utf8)
      try "Sing about it.".write(toFile: directory + "/blocks/song.txt", atomically: true, encoding: .utf8)
      let upstream = try ScriptedUpstream { exchange in
        if exchange.request.body.contains(#""content":"cut"}"#) {
          exchange.sendHead()
          return exchange.sendDelta("So")
        }
        exchange.stream(["So", "?"])
      }
      let servers = try await Servers(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_PROMPTS": directory])
      func send(_ message: String) async throws -> JSON {
        try await servers.get("/chat/onboarding-stream?message=\(message)").events.last?.json ?? .null
      }
      func progress(_ end: JSON) -> [JSON?] { [end["step"], end["steps"], end["finished"]] }

      #expect(progress(try await send("Ada")) == [.integer(1), .integer(2), .bool(false)])
      #expect(upstream.requests[0].body.contains("step 1 of 2, \\\"name\\\":\\nAsk the name."))
      // A failed stream does not advance onboarding.
      #expect(try await send("cut")["code"] == "upstream_truncated")
      let end = try await send("Learn")
      #expect(progress(end) == [.integer(2), .integer(2), .bool(true)] && end["session_id"] == "onboarding", "\(end)")
      let asked = upstream.requests[2].body
      #expect(asked.contains("- name: Ada") && asked.contains("step 2 of 2") && !asked.contains("cut"), "\(asked)")
      // After the last step, the conversation continues without advancing.
      #expect(progress(try await send("More")) == [.integer(2), .integer(2), .bool(true)])
      #expect(try await servers.get("/api/sessions/onboarding").json["turns"]?.count == 3)

      // The administrator's own block type works, and the error for an unknown type lists it.
      #expect(try await servers.get("/api/stream/ai-block/song?input=rain").events.last?.type == "complete")
      #expect(upstream.requests.last?.body.contains("Sing about it.") == true)
      let unknown = try await servers.get("/api/stream/ai-block/dance?input=rain")
      #expect(unknown.status == 404 && unknown.contains("diagram, explain-like-i-am-10, quiz, song"), "\(unknown)")
      _ = await servers.stop()
    }

    @Test("A disconnect does not advance onboarding")
    func abandoned() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "20ms"])
      let words = String(repeating: "word%20", count: 200)
      let curl = try servers.curl("/chat/onboarding-stream?message=" + words)
      #expect(await eventually { curl.output.contains("chunk") })
      curl.signal(SIGKILL)
      #expect(await servers.outcomes(1) == ["disconnected"])
      let end = try await servers.get("/chat/onboarding-stream?message=Ada").events.last?.json ?? .null
      #expect(end["step"] == .integer(1), "\(end)")
      _ = await servers.stop()
    }
  }
}
