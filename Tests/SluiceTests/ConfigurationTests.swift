import EventLoop
import FastCGI
import Foundation
import JSON
import SluiceTesting
import Synchronization
import Testing

@testable import Sluice

@Suite("Configuration")
struct ConfigurationTests {
  private let directory = TemporaryDirectory()

  private func issues(_ environment: [String: String]) -> [String] {
    do throws(ConfigurationError) {
      _ = try Configuration(environment: environment)
      return []
    } catch { return error.issues.map(\.description) }
  }

  @Test("The defaults match the documentation")
  func defaults() throws {
    let configuration = try Configuration(environment: ["SLUICE_AUTH": "none"])
    #expect(GeneratorKind.selected(by: configuration).name == "echo")
    #expect(configuration.idleTimeout == .seconds(30) && configuration.firstTokenTimeout == .seconds(60))
    #expect(configuration.heartbeat == .seconds(15) && configuration.historyTurns == 50)
    #expect(configuration.state == "./state" && configuration.loops == 1)
  }

  @Test("The configuration is invalid unless authentication is configured")
  func decision() {
    #expect(issues([:]).count == 1 && issues([:])[0].contains("is not set: configure authentication"))
    #expect(issues(["SLUICE_TRUST_REMOTE_USER": "on"]).isEmpty)
  }

  @Test("All issues are reported together, each with its variable and the expected value")
  func everyIssue() {
    let found = issues([
      "SLUICE_AUTH": "nobody", "SLUICE_IDLE_TIMEOUT": "30", "SLUICE_MAX_BODY": "1X", "SLUICE_LOOPS": "0",
      "SLUICE_LISTEN": "nowhere", "SLUICE_GENERATOR": "upstream", "SLUICE_LOG": "loud", "SLUICE_HEARTBEAT": "",
    ])
    #expect(found.count == 8, "\(found)")
    for variable in [
      "SLUICE_AUTH", "SLUICE_IDLE_TIMEOUT", "SLUICE_MAX_BODY", "SLUICE_LOOPS", "SLUICE_LISTEN", "SLUICE_GENERATOR",
      "SLUICE_LOG",
    ] {
      #expect(found.contains { $0.hasPrefix(variable) }, "\(variable) in \(found)")
    }
    #expect(found.contains(#"SLUICE_IDLE_TIMEOUT must be a duration such as 500ms, 30s or 2m, not "30""#))
  }

  @Test("An invalid line of a tokens file is reported by its number, and an unreadable file by its path")
  func files() {
    let tokens = directory.file("tokens", "# who\nalice:\(Digest(of: "t").hex)\nbob:12\n\ncarol\n")
    let found = issues(["SLUICE_TOKENS_FILE": tokens, "SLUICE_SYSTEM_PROMPT_FILE": "/nowhere"])
    #expect(found.count == 3, "\(found)")
    #expect(found.contains { $0.contains("line 3") } && found.contains { $0.contains("line 5") })
    #expect(found.contains { $0.contains("/nowhere: No such file or directory") })
  }

  @Test("The web server can override only per-location settings, and a client can override nothing")
  func perLocation() throws {
    let base = try Configuration(environment: ["SLUICE_AUTH": "none", "SLUICE_MODEL": "a"])
    let applied = try base.applying(["SLUICE_MODEL": "b", "SLUICE_STREAM_CHAT": "off", "SLUICE_IDLE_TIMEOUT": ""])
    #expect(applied.model == "b" && !applied.isEnabled(.streamChat) && applied.idleTimeout == .seconds(30))
    let untouched = try base.applying([
      "SLUICE_TOKENS_FILE": "/etc/passwd", "SLUICE_AUTH": "x", "HTTP_SLUICE_MODEL": "c",
      "HTTP_SLUICE_TRUST_REMOTE_USER": "on",
    ])
    #expect(untouched.model == "a" && untouched.tokensFile == nil && !untouched.trustsRemoteUser)
    #expect(throws: ConfigurationError.self) { try base.applying(["SLUICE_IDLE_TIMEOUT": "soon"]) }
  }

  @Test("An upstream key that is unreadable, empty or not a single line is reported as an issue")
  func upstreamKey() throws {
    let directory = TemporaryDirectory()
    func issues(_ environment: [String: String]) -> [String] {
      do {
        _ = try Configuration(environment: environment.merging(["SLUICE_AUTH": "none"]) { $1 })
        return []
      } catch { return error.issues.map(\.description) }
    }
    // A credential that systemd has not passed counts as unset; one that is a directory is an issue.
    #expect(issues(["CREDENTIALS_DIRECTORY": directory.path]).isEmpty)
    try FileManager.default.createDirectory(atPath: directory.path + "/upstream-key", withIntermediateDirectories: true)
    let unreadable = issues(["CREDENTIALS_DIRECTORY": directory.path])
    #expect(unreadable.count == 1 && unreadable[0].contains("SLUICE_UPSTREAM_KEY_FILE cannot be read"), "\(unreadable)")
    for (text, isRight) in [("sk-1\n", true), (" \n", false), ("sk-1\nsk-2\n", false)] {
      #expect(issues(["SLUICE_UPSTREAM_KEY_FILE": directory.file("key", text)]).isEmpty == isRight, "\(text)")
    }
  }

  @Test("Durations, sizes and flags are accepted only in their documented forms")
  func values() throws {
    #expect(try SettingValue.duration("500ms") == .milliseconds(500))
    #expect(try SettingValue.duration("2m") == .seconds(120))
    #expect(try SettingValue.duration("0") == .zero)
    #expect(try SettingValue.size("64K") == 65536 && SettingValue.size("1M") == 1 << 20 && SettingValue.size("7") == 7)
    for text in ["on", "true", "1"] { #expect(try SettingValue.flag(text)) }
    for text in ["off", "false", "0"] { #expect(try !SettingValue.flag(text)) }
    for text in ["", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "+1s"] {
      #expect(throws: SettingError.self, "\(text)") { try SettingValue.duration(text) }
    }
    for text in ["", "K", "-1", "1T", "9999999999999999999G"] {
      #expect(throws: SettingError.self, "\(text)") { try SettingValue.size(text) }
    }
  }

  @Test("The README documents every setting")
  func documented() throws {
    let readme = try String(contentsOfFile: "README.md", encoding: .utf8)
    let missing = Setting.all.filter { !readme.contains("`\($0.name)`\($0.isPerLocation ? "\\*" : "")") }
    #expect(missing.map(\.name) == [])
  }
}

@Suite("Tokens")
struct TokensTests {
  private let directory = TemporaryDirectory()

  @Test("A token authenticates its user until it expires")
  func users() throws {
    let digest = Digest(of: "secret").hex
    let file = TokensFile(
      parsing:
        "alice:\(digest)\r\nbob:\(Digest(of: "b").hex):2026-01-01\n  # x\ncarol:\(Digest(of: "c").hex):2026-01-01T10:00:00Z"
    )
    #expect(file.issues.isEmpty, "\(file.issues)")
    let new2026 = try Date("2026-01-01T00:00:00Z", strategy: .iso8601)
    #expect(file.user(of: "secret")?.name == "alice")
    #expect(TokensFile(parsing: "d:\(digest):2020-01-01T00:00:00Zjunk").issues.count == 1)
    #expect(file.user(of: "Secret") == nil && file.user(of: "") == nil && file.user(of: digest) == nil)
    #expect(file.user(of: "b", now: new2026 - 1)?.name == "bob" && file.user(of: "b", now: new2026) == nil)
    #expect(file.user(of: "c", now: new2026 + 3600)?.name == "carol" && file.user(of: "c", now: new2026 + 36000) == nil)
  }

  @Test("Adding a token stores only its digest, even after an unterminated last line")
  func adding() throws {
    let path = directory.file("tokens", "alice:\(Digest(of: "a").hex)")
    let token = try Tokens.add(user: "bob", toFile: path)
    let text = try String(contentsOfFile: path, encoding: .utf8)
    #expect(!text.contains(token))
    let file = TokensFile(parsing: text)
    #expect(file.issues.isEmpty && file.user(of: token)?.name == "bob" && file.user(of: "a")?.name == "alice")
    #expect(throws: StartError.self) { try Tokens.add(user: "a:b", toFile: path) }
  }

  @Test("A changed tokens file is read again, and a removed one authenticates no user")
  func watching() throws {
    let path = directory.file("tokens", "alice:\(Digest(of: "a").hex)\n")
    let file = WatchedFile(path) { TokensFile(parsing: String(decoding: $0, as: UTF8.self)) }
    #expect(try file.content().user(of: "a")?.name == "alice")
    _ = directory.file("tokens", "bob:\(Digest(of: "a").hex)\n")
    #expect(try file.content().user(of: "a")?.name == "bob")
    try FileManager.default.removeItem(atPath: path)
    #expect(throws: (any Error).self) { try file.content() }
  }

  @Test("A hundred thousand tokens are parsed off the loop, once")
  func many() async throws {
    let lines = (0..<100_000).map { "user\($0):\(String(repeating: "0", count: 59))\(String($0 + 0x10000, radix: 16))" }
    let path = directory.file("many", (lines + ["alice:\(Digest(of: "a").hex)"]).joined(separator: "\n"))
    // The file is parsed only once the loop has done something else meanwhile.
    let hasTicked = Gate()
    let parsings = Atomic(0)
    let file = WatchedFile(path) { bytes in
      parsings.add(1, ordering: .relaxed)
      for _ in 0..<60_000 where !hasTicked.isPassable { usleep(1000) }
      return TokensFile(parsing: hasTicked.isPassable ? String(decoding: bytes, as: UTF8.self) : "")
    }
    let pool = BlockingPool()
    let found = try await onLoop { reactor -> Int in
      _ = reactor.schedule(after: .milliseconds(10)) { hasTicked.open() }
      var found = try await file.content(on: pool).user(of: "a")?.name == "alice" ? 1 : 0
      let tokens = try await file.content(on: pool)
      for _ in 0..<1000 where tokens.user(of: "b") == nil { found += 1 }
      return found
    }
    #expect(found == 1001 && parsings.load(ordering: .relaxed) == 1)
  }

  @Test("REMOTE_USER is accepted from the site's own pages, but not from pages or images of other origins")
  func foreignPages() async throws {
    let configuration = try Configuration(environment: [
      "SLUICE_TRUST_REMOTE_USER": "on", "SLUICE_CORS_ORIGINS": "https://app.example.com",
    ])
    let authenticator = BuiltInAuthenticator(configuration, log: Log(level: .error), pool: BlockingPool())
    func isAccepted(_ method: String, callsModel: Bool, _ fields: [(String, String)]) async -> Bool {
      var parameters: Parameters = [
        "REMOTE_USER": "ada", "REQUEST_METHOD": method, "HTTP_HOST": "chat.example.com:8080",
      ]
      for (name, value) in fields { parameters[name] = value }
      return
        (try? await authenticator.authenticate(
          Request(parameters: parameters), trustsRemoteUser: true, callsModel: callsModel)) != nil
    }
    let good = [
      [("HTTP_SEC_FETCH_SITE", "same-origin")], [("HTTP_SEC_FETCH_SITE", "none")],
      [("HTTP_ORIGIN", "http://chat.example.com:8080")], [("HTTP_REFERER", "http://CHAT.example.com:8080/a?b=//c")],
      [("HTTP_ORIGIN", "https://app.example.com")],
      [("HTTP_ORIGIN", "https://app.example.com"), ("HTTP_SEC_FETCH_SITE", "cross-site")],
      // TLS can be terminated before Sluice, so only host and port are compared, not the scheme.
      [("HTTP_ORIGIN", "https://chat.example.com:8080")],
    ]
    let bad = [
      [("HTTP_SEC_FETCH_SITE", "cross-site")], [("HTTP_SEC_FETCH_SITE", "same-site")],
      [("HTTP_ORIGIN", "http://evil.example.com")], [("HTTP_ORIGIN", "null")],
      [("HTTP_ORIGIN", "http://chat.example.com")],
      [("HTTP_REFERER", "http://evil.example.com/chat.example.com:8080")], [("HTTP_REFERER", "about:blank")],
      [("HTTP_REFERER", "http://chat.example.com:8080@evil.example.com/")],
      [("HTTP_ORIGIN", "http://evil.example.com"), ("HTTP_REFERER", "http://chat.example.com:8080/")],
    ]
    for method in ["GET", "POST"] {
      for fields in good {
        #expect(await isAccepted(method, callsModel: true, fields), "\(method) \(fields)")
        #expect(await isAccepted(method, callsModel: false, fields), "\(method) \(fields)")
      }
      for fields in bad {
        #expect(await !isAccepted(method, callsModel: true, fields), "\(method) \(fields)")
        #expect(await !isAccepted(method, callsModel: false, fields), "\(method) \(fields)")
      }
    }
    // A program sends none of these fields, and neither does an image with a no-referrer policy. A GET or HEAD without
    // them must therefore not call a model.
    #expect(await !isAccepted("GET", callsModel: true, []))
    #expect(await !isAccepted("HEAD", callsModel: true, []))
    #expect(await isAccepted("GET", callsModel: false, []))
    #expect(await isAccepted("POST", callsModel: true, []))
  }

  @Test("A token is read from the header, else from the query, and REMOTE_USER only if the web server is trusted")
  func sources() async throws {
    let path = directory.file("tokens", "alice:\(Digest(of: "a").hex)\n")
    let configuration = try Configuration(environment: ["SLUICE_TOKENS_FILE": path])
    let authenticator = BuiltInAuthenticator(configuration, log: Log(level: .error), pool: BlockingPool())
    func user(_ parameters: Parameters, trusting: Bool = false) async -> String? {
      try? await authenticator.authenticate(
        Request(parameters: parameters), trustsRemoteUser: trusting, callsModel: false
      ).name
    }
    #expect(await user(["HTTP_AUTHORIZATION": "Bearer a"]) == "alice")
    #expect(await user(["HTTP_AUTHORIZATION": "bearer  a "]) == "alice")
    #expect(await user(["QUERY_STRING": "x=1&token=a"]) == "alice")
    #expect(await user(["HTTP_AUTHORIZATION": "Basic a"]) == nil)
    #expect(await user(["HTTP_AUTHORIZATION": "Bearer b", "QUERY_STRING": "token=a"]) == nil)
    #expect(await user(["REMOTE_USER": "root"]) == nil)
    #expect(await user(["HTTP_REMOTE_USER": "root"], trusting: true) == nil)
    #expect(await user(["REMOTE_USER": "root"], trusting: true) == "root")
    #expect(await user(["REMOTE_USER": ""], trusting: true) == nil)
  }
}
