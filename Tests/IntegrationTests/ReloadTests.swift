import EventLoop
import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Reload of the configuration")
  struct ReloadTests {
    /// A site whose settings are in a file that the test edits.
    private final class EditedSite: Sendable {
      let directory = TemporaryDirectory()
      let site: Site
      var path: String { directory.path + "/sluice.env" }

      init(_ settings: String, _ environment: [String: String] = [:]) async throws {
        let path = directory.file("sluice.env", settings)
        site = try await Site(["SLUICE_ENV_FILE": path].merging(environment) { $1 })
      }

      func log(_ message: String) -> [[String: Any]] { site.sluice.program.log(message) }

      /// Replaces the settings, sends SIGHUP, and returns the line of the log that says how it ended.
      func reload(_ settings: String, expecting message: String = "reloaded") async throws -> [String: Any] {
        try settings.write(toFile: path, atomically: true, encoding: .utf8)
        let count = log(message).count
        site.sluice.program.signal(SIGHUP)
        #expect(await eventually { log(message).count > count }, "\(site.sluice.program.errors)")
        return try #require(log(message).last)
      }

      func chat(_ more: [String] = []) async throws -> String {
        try await site.request("/api/chat", #"{"message":"a"}"#, more)
      }
    }

    @Test("SIGHUP changes the model server, limits and origins for new requests; a stream goes on", arguments: [1, 2])
    func changes(loops: Int) async throws {
      let isReloaded = Locked(false)
      let first = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("one")
        while !isReloaded.withLock(\.self), exchange.isOpen { exchange.pause(.milliseconds(5)) }
        exchange.stream([", still one"])
      }
      let second = try ScriptedUpstream { $0.stream(["two"]) }
      let edited = try await EditedSite(
        "SLUICE_UPSTREAM_URL=\(first.baseURL)\nSLUICE_MODEL=m\n", ["SLUICE_LOOPS": "\(loops)"])
      async let running = edited.chat()
      #expect(await eventually { first.requests.count == 1 })
      let key = edited.directory.file("key", "sk-secret")
      let line = try await edited.reload(
        """
        SLUICE_UPSTREAM_URL=\(second.baseURL)
        SLUICE_UPSTREAM_KEY_FILE=\(key)
        SLUICE_MODEL="n"
        SLUICE_MAX_BODY=1K
        SLUICE_CORS_ORIGINS=https://app.example.com
        """)
      #expect(line["model"] as? String == "n" && (line["generator"] as? String)?.contains(second.baseURL) == true)
      // One request for each loop at least.
      for _ in 0..<2 * loops {
        let response = try await edited.chat(["-H", "Origin: https://app.example.com"])
        #expect(response.contains("two") && response.contains("event: done"), "\(response)")
        #expect(response.contains("Access-Control-Allow-Origin: https://app.example.com"), "\(response)")
        let large = "{\"message\":\"\(String(repeating: "a", count: 2000))\"}"
        #expect(try await edited.site.request("/api/chat", large).contains(" 413 "))
      }
      let request = try #require(second.requests.first)
      #expect(request.head.contains("Authorization: Bearer sk-secret") && request.body.contains(#""model":"n""#))
      isReloaded.withLock { $0 = true }
      let text = try await running
      #expect(text.contains("one") && text.contains("still one") && text.contains("event: done"), "\(text)")
      // A line that was taken out falls back to the environment, here to no setting.
      _ = try await edited.reload("SLUICE_ECHO_GAP=0\n")
      #expect(try await edited.chat().contains("event: done"))
      #expect(second.requests.count == 2 * loops)
      await edited.site.stop()
    }

    @Test("A mistake is refused as a whole, and named with variable, file and line")
    func mistake() async throws {
      let edited = try await EditedSite("SLUICE_ECHO_GAP=0\nSLUICE_MODEL=a\n")
      let line = try await edited.reload(
        "# new\nSLUICE_MODEL=b\nSLUICE_IDLE_TIMEOUT=30\nexport SLUICE_HISTORY=1\n", expecting: "reload failed")
      #expect(line["variable"] as? String == "SLUICE_IDLE_TIMEOUT" && line["origin"] as? String == edited.path + ":3")
      #expect(edited.log("reload failed").map { $0["origin"] as? String } == [edited.path + ":4", edited.path + ":3"])
      #expect(edited.log("reloaded").isEmpty)
      let models = try await edited.site.request("/v1/models")
      #expect(models.contains(#""id":"a""#), "\(models)")
      try FileManager.default.removeItem(atPath: edited.path)
      let count = edited.log("reload failed").count
      edited.site.sluice.program.signal(SIGHUP)
      #expect(await eventually { edited.log("reload failed").count > count })
      #expect(edited.log("reload failed").last?["variable"] as? String == "SLUICE_ENV_FILE")
      await edited.site.stop()
    }

    @Test("What needs a restart is logged and keeps its value")
    func fixed() async throws {
      let edited = try await EditedSite("SLUICE_ECHO_GAP=0\n")
      _ = try await edited.reload(
        "SLUICE_ECHO_GAP=0\nSLUICE_STATE=\(edited.directory.path)\nSLUICE_LISTEN=127.0.0.1:1\nSLUICE_LOOPS=3\nSLUICE_COALESCE=off\n"
      )
      #expect(
        edited.log("setting not changed").compactMap { $0["variable"] as? String }
          == ["SLUICE_STATE", "SLUICE_LISTEN", "SLUICE_LOOPS", "SLUICE_COALESCE"])
      #expect(try await edited.chat().contains("event: done"))
      #expect(FileManager.default.fileExists(atPath: edited.site.sluice.directory + "/state/users/anonymous/sessions"))
      await edited.site.stop()
    }

    @Test("A hundred reloads, each with another model server, leave no connection open")
    func repeated() async throws {
      let upstreams = try (0..<2).map { _ in
        try ScriptedUpstream { exchange in exchange.respond("400 Bad Request", "{}") }
      }
      func settings(_ index: Int) -> String { "SLUICE_UPSTREAM_URL=\(upstreams[index % 2].baseURL)\nSLUICE_MODEL=m\n" }
      let edited = try await EditedSite(settings(0))
      _ = try await edited.chat()
      var descriptors: [Int] = []
      for index in 1...100 {
        _ = try await edited.reload(settings(index))
        if index % 10 == 0 {
          #expect(try await edited.chat().contains("upstream_error"))
          // The old generator closes its connections within a second.
          #expect(await eventually { edited.site.sluice.descriptors <= (descriptors.first ?? .max) })
          descriptors.append(edited.site.sluice.descriptors)
        }
      }
      #expect((descriptors.max() ?? 0) <= descriptors[0], "\(descriptors)")
      await edited.site.stop()
    }
  }
}
