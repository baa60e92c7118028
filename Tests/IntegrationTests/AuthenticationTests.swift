import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Authentication")
  struct AuthenticationTests {
    /// Creates keys and tokens with another library, and returns their directory.
    private func makeTokens() async throws -> String {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-jwt-\(UUID().uuidString)"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      let python = try Program(
        packageRoot + "/.build/python/bin/python", [packageRoot + "/Tests/Contract/tokens.py", directory])
      #expect(await python.exitCode() == 0, "\(python.errors)")
      return directory
    }

    private func cases(_ path: String) throws -> [JSON] {
      guard case .array(let cases) = try JSON(parsing: Array(try Data(contentsOf: URL(fileURLWithPath: path)))) else {
        return []
      }
      return cases
    }

    @Test("Removing a token's line ends the streams that were started with it, and no others")
    func revocation() async throws {
      let directory = TemporaryDirectory()
      let path = directory.path + "/tokens"
      var tokens: [String] = []
      for user in ["ann", "ann", "bob"] {
        let program = try Program(
          releaseDirectory + "/sluice", ["token", user], environment: ["SLUICE_TOKENS_FILE": path])
        #expect(await program.exitCode() == 0)
        tokens.append(program.output.trimmingCharacters(in: .whitespacesAndNewlines))
      }
      let site = try await Site(["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": path, "SLUICE_ECHO_GAP": "20ms"])
      let words = String(repeating: "word ", count: 150)
      let streams = try tokens.map { token in
        try Program(
          "/usr/bin/curl",
          [
            "-sSN", "--max-time", "60", "-H", "Authorization: Bearer \(token)", "-H", "Content-Type: application/json",
            "-d",
            "{\"message\":\"\(words)\"}", site.url + "/api/chat",
          ])
      }
      #expect(await eventually { streams.allSatisfy { $0.output.contains("event: token") } })
      let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
      // An editor that writes in place, for longer than a check; and the expiry of a token.
      let expired = lines.map { $0.hasPrefix("bob") ? $0 + ":2020-01-01" : $0 }.joined(separator: "\n") + "\n"
      for text in ["", "ann:12\n", expired] { try text.write(toFile: path, atomically: false, encoding: .utf8) }
      try (lines.dropFirst().joined(separator: "\n") + "\n").write(toFile: path, atomically: true, encoding: .utf8)
      for stream in streams { _ = await stream.exitCode() }
      #expect(streams[0].output.contains("event: error") && streams[0].output.contains("unauthorized"))
      #expect(!streams[0].output.contains("event: done"))
      for stream in streams.dropFirst() {
        #expect(stream.output.contains("event: done"), "\(stream.output.suffix(200))")
      }
      let outcomes = site.sluice.program.log("stream ended")
      #expect(
        outcomes.filter { $0["error"] as? String == "unauthorized" }.compactMap { $0["user"] as? String } == ["ann"])
      // Nothing of the revoked stream is stored.
      #expect(site.sluice.program.log("stream ended").filter { $0["messageId"] != nil }.count == 2)
      await site.stop()
    }

    @Test("A valid JSON Web Token authenticates the user in its sub claim, and any other token is refused")
    func jwt() async throws {
      let directory = try await makeTokens()
      defer { try? FileManager.default.removeItem(atPath: directory) }
      let servers = try await Servers([
        "SLUICE_JWT_KEYS_FILE": directory + "/keys.json", "SLUICE_JWT_ISSUER": "https://id.example",
        "SLUICE_JWT_AUDIENCE": "sluice", "SLUICE_ECHO_GAP": "0",
      ])
      // Tokens from the tokens file remain valid alongside JSON Web Tokens.
      #expect(try await servers.get("/api/sessions").status == 200)
      let cases = try cases(directory + "/cases.json")
      #expect(cases.count > 30)
      for index in cases.indices {
        let name = cases[index][0]?.string ?? ""
        let token = cases[index][1]?.string ?? ""
        let user = cases[index][2]?.string
        let output = try await servers.post(
          "/messages/", #"{"content":"x","chat_id":"\#(index)"}"#, token: token)
        // nginx has its own limit for the length of a header line, and refuses a longer one with 400.
        let refusals = name == "huge" ? [400, 401] : [401]
        #expect(user != nil ? output.status == 200 : refusals.contains(output.status ?? 0), "\(name): \(output)")
        let path = servers.state + "/users/\(user ?? "ada")/sessions/\(index).jsonl"
        #expect(FileManager.default.fileExists(atPath: path) == (user != nil), "\(name)")
      }
      #expect(!FileManager.default.fileExists(atPath: servers.state + "/users/root"))
      _ = await servers.stop()

      let bare = try await Servers(["SLUICE_JWT_KEYS_FILE": directory + "/secret"])
      for value in try self.cases(directory + "/bare.json") {
        let output = try await bare.get("/api/sessions", token: value[1]?.string ?? "")
        #expect(output.status == (value[2]?.string == nil ? 401 : 200), "\(value[0]?.string ?? "")")
      }
      _ = await bare.stop()
    }

    @Test("An unreadable tokens file causes 500, and an expired or removed token gets 401")
    func tokensFile() async throws {
      let file = try await TokensFile("ada", "eve")
      let sluice = try await Sluice(["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": file.path])
      func status(_ token: String) throws -> String {
        let client = try FastCGIClient(path: sluice.socket)
        client.send(
          FastCGIClient.request([
            ("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/api/sessions"), ("HTTP_AUTHORIZATION", "Bearer \(token)"),
          ]))
        return String(client.readResponse().text.dropFirst("Status: ".count).prefix(3))
      }
      #expect(try file.tokens.map(status) == ["200", "200"])
      let lines = try String(contentsOfFile: file.path, encoding: .utf8).split(separator: "\n")
      try "\(lines[0]):2026-01-01\n".write(toFile: file.path, atomically: true, encoding: .utf8)
      #expect(try file.tokens.map(status) == ["401", "401"])
      try FileManager.default.removeItem(atPath: file.path)
      #expect(try file.tokens.map(status) == ["500", "500"])
      #expect(await eventually { !sluice.program.log("cannot verify tokens").isEmpty })
      try "\(lines[1])\n".write(toFile: file.path, atomically: true, encoding: .utf8)
      #expect(try file.tokens.map(status) == ["401", "200"])
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("A client cannot set REMOTE_USER or any setting with a header field")
    func headers() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0"])
      let names = ["REMOTE_USER", "REMOTE-USER", "HTTP_REMOTE_USER", "AUTH_TYPE", "SLUICE_AUTH", "SLUICE-AUTH"]
      let settings = try String(contentsOfFile: packageRoot + "/README.md", encoding: .utf8)
        .matches(of: #/`((?:SLUICE|FEATURE|AI|ENABLE|STREAMING)_[A-Z_]+)`/#).map { String($0.output.1) }
      #expect(settings.count > 30)
      for name in Set(names + settings) {
        let value =
          switch name {
          case let name where name.contains("TRUST"): "on"
          case let name where name.contains("USER"): "root"
          case let name where name.contains("AUTH"): "none"
          default: "off"
          }
        for spelling in [name, name.replacingOccurrences(of: "_", with: "-"), "HTTP_" + name] {
          let header = ["-H", "\(spelling): \(value)", "-H", "REMOTE_USER: root", "-H", "Remote-User: root"]
          #expect(try await servers.get("/api/sessions", header, token: "").status == 401, "\(spelling)")
        }
      }
      // None of them changes the response to an authenticated user, either.
      let all = Set(settings).flatMap { ["-H", "\($0.replacingOccurrences(of: "_", with: "-")): off"] }
      let output = try await servers.post("/api/chat", #"{"message":"a"}"#, all)
      #expect(output.events.last?.type == "done", "\(output)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: servers.state + "/users") == ["demo"])
      _ = await servers.stop()
    }
  }
}
