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
      _ = try Configuration(environment)
      return []
    } catch { return error.issues.map(\.description) }
  }

  @Test("The defaults match the documentation")
  func defaults() throws {
    let configuration = try Configuration(["SLUICE_AUTH": "none"])
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
    let base = try Configuration(["SLUICE_AUTH": "none", "SLUICE_MODEL": "a"])
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
        _ = try Configuration(environment.merging(["SLUICE_AUTH": "none"]) { $1 })
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

  /// Returns the warnings about a valid configuration.
  private func warnings(_ environment: [String: String]) throws -> [String] {
    try Configuration(environment).warnings(environment: Environment(environment), features: [Feature("SLUICE_OWN")])
      .map(\.description)
  }

  @Test("Each mistake is named with its variable and what would be right")
  func mistakes() throws {
    let url = "SLUICE_UPSTREAM_URL"
    let errors: [(variable: String, value: String, reason: String)] = [
      (url, "api.openai.com/v1", "must start with http:// or https://"), (url, "ftp://a", "must start with http://"),
      (url, "https://api.openai.com/v1 ", "must not contain white space"),
      (url, "https://a b", "must not contain white"),
      (url, "https://", "must name a host"), (url, "https:///v1", "must name a host"),
      (url, "https://a/v1/chat/completions", "must be the base URL, without /chat/completions"),
      ("SLUICE_MAX_TOKENS", "0", "must be greater than 0"),
      ("SLUICE_MAX_TOKENS", "many", "must be a non-negative integer"),
      ("SLUICE_GENERATOR", "openai", "must be upstream, command or echo"),
      ("SLUICE_GENERATOR", "command", "but SLUICE_COMMAND is not set"),
      ("SLUICE_COMMAND", "model \"a b", "has a quote (\") that is not closed"),
      ("SLUICE_COMMAND", "[1]", "must be a JSON array of strings"),
      ("SLUICE_COMMAND", "nowhere -m x", "names a program that cannot be executed in PATH: nowhere"),
      ("SLUICE_COMMAND", "/etc/passwd", "names a program that cannot be executed: /etc/passwd"),
      ("SLUICE_COMMAND_PROCESSES", "0", "must be greater than 0"),
      ("SLUICE_GENERATOR", "upstream", "but SLUICE_UPSTREAM_URL"),
      ("SLUICE_TOKENS_FILE", "/nowhere", "cannot be read"), ("SLUICE_JWT_KEYS_FILE", "/nowhere", "cannot be read"),
      ("SLUICE_JWT_ISSUER", "x", "is set, but SLUICE_JWT_KEYS_FILE is not"),
      ("SLUICE_JWT_AUDIENCE", "x", "is set, but"),
      ("SLUICE_TRUST_REMOTE_USER", "yes", "must be on or off"), ("SLUICE_AUTH", "off", "must be none or unset"),
      ("SLUICE_STORE_REASONING", "all", "must be on or off"),
      ("SLUICE_REDACT_FILE", "/nowhere", "cannot be read"), ("SLUICE_PROMPTS", "/nowhere", "cannot be read"),
      ("SLUICE_SYSTEM_PROMPT_FILE", "/nowhere", "cannot be read"),
      ("SLUICE_CORS_ORIGINS", "*", "must be origins such as"),
      ("SLUICE_CORS_ORIGINS", "https://a/", "must be origins"), ("SLUICE_IDLE_TIMEOUT", "0", "must be greater than 0"),
      ("SLUICE_IDLE_TIMEOUT", "30 s", "must be a duration"), ("SLUICE_FIRST_TOKEN_TIMEOUT", "60", "must be a duration"),
      ("SLUICE_STREAM_TIMEOUT", "-1s", "must be a duration"), ("SLUICE_STREAM_TIMEOUT", "0s", "must be greater than 0"),
      ("SLUICE_HEARTBEAT", "15s # often", "must be a duration"), ("SLUICE_RESUME", "on", "must be a duration"),
      ("SLUICE_WRITE_TIMEOUT", "0", "must be greater than 0"),
      ("SLUICE_DRAIN_TIMEOUT", "2 minutes", "must be a duration"),
      ("SLUICE_STREAMS_PER_USER", "ten", "must be a non-negative integer"),
      ("SLUICE_MESSAGES_PER_HOUR", "-1", "must be a"),
      ("SLUICE_MAX_STREAMS", "1e4", "must be a non-negative integer"),
      ("SLUICE_MAX_BODY", "1MB", "must be a size in bytes"),
      ("SLUICE_MAX_MESSAGE", "64 K", "must be a size"), ("SLUICE_MAX_ANSWER", "", ""),
      ("SLUICE_HISTORY", "all", "must be a"),
      ("SLUICE_STATE", "/dev/null/x", "is not usable as the store"),
      ("SLUICE_LISTEN", "9000", "must be unix:PATH or HOST:PORT"),
      ("SLUICE_LISTEN", "/run/sluice.sock", "must be unix:PATH"),
      ("SLUICE_LISTEN", "127.0.0.1:99999", "must be unix:PATH"),
      ("SLUICE_LISTEN", "unix:", "must be unix:PATH with a path of 1 to 107 bytes"),
      ("SLUICE_LISTEN", "unix:/nowhere/s", "names a socket that cannot be created"),
      ("SLUICE_WEBSOCKET_LISTEN", "unix:/nowhere/w", "names a socket that cannot be created"),
      ("SLUICE_LOOPS", "65", "must be an integer from 1 to 64"), ("SLUICE_COALESCE", "yes", "must be on or off"),
      ("SLUICE_LOG", "verbose", "must be error, warning, info or debug"),
      ("SLUICE_ECHO_GAP", "fast", "must be a duration"),
      ("SLUICE_STREAM_CHAT", "no", "must be on or off"), ("ENABLE_STREAMING", "disabled", "must be on or off"),
      ("FEATURE_STREAMING", "2", "must be on or off"), ("AI_STREAMING_ENABLED", "-", "must be on or off"),
      ("SLUICE_STREAM_REPORT", "none", "must be on or off"),
      ("STREAMING_BACKEND", "ws", "must be sse, websocket or both"),
    ]
    for (variable, value, reason) in errors + fileErrors() {
      let found = issues(["SLUICE_TRUST_REMOTE_USER": "on"].merging([variable: value]) { $1 })
      // An empty value counts as unset.
      let isRight =
        value.isEmpty
        ? found.isEmpty
        : found.contains { $0.hasPrefix("\(variable) \(reason)") || ($0.hasPrefix(variable) && $0.contains(reason)) }
      #expect(isRight, "\(variable)=\(value): \(found)")
      if value.isEmpty { continue }
      // In a file, the line is named too.
      let path = directory.file("sluice.env", "# settings\n\n\(variable)='\(value)'\n")
      let located = issues([Environment.fileVariable: path, "SLUICE_TRUST_REMOTE_USER": "on"])
      #expect(located.contains { $0.hasPrefix("\(path):3: \(variable) ") && $0.contains(reason) }, "\(located)")
    }
    #expect(errors.count + fileErrors().count > 70)
    #expect(
      issues(["SLUICE_AUTH": "none", "SLUICE_TOKENS_FILE": directory.file("none", "")])[0].contains("conflicts with"))
  }

  /// Mistakes in the files that settings name.
  private func fileErrors() -> [(variable: String, value: String, reason: String)] {
    let digest = Digest(of: "t").hex
    func rows(
      _ variable: String, _ texts: [(text: String, reason: String)]
    ) -> [(variable: String, value: String, reason: String)] {
      texts.enumerated().map { (variable, directory.file("\(variable)-\($0)", $1.text), $1.reason) }
    }
    return rows(
      "SLUICE_TOKENS_FILE",
      [
        ("alice\n", "is invalid at line 1: must be user:sha256hex"), ("# c\n:\(digest)\n", "is invalid at line 2"),
        ("alice:12\n", "is invalid at line 1: the digest of alice must be the 64 hexadecimal digits"),
        ("alice:\(digest):soon\n", "is invalid at line 1: the expiry of alice must be a date"),
        ("alice:\(digest)\nbob \(digest)\n", "is invalid at line 2"),
      ])
      + rows(
        "SLUICE_REDACT_FILE",
        [
          ("", "is invalid at line 1: the file contains no pattern"), ("name\n", "is invalid at line 1: must be NAME"),
          ("# c\nname  (\n", "is invalid at line 2: missing closing parenthesis"),
          ("name  a*\n", "is invalid at line 1: the pattern must not match the empty string"),
          ("name  a\\Kb\n", "cannot match across deltas"), ("a  b  c  d\n", "must be NAME, PATTERN"),
        ])
      + rows("SLUICE_UPSTREAM_KEY_FILE", [("", "is empty"), ("a\nb\n", "has more than one line")])
      + rows("SLUICE_JWT_KEYS_FILE", [("{", "is invalid"), ("short", "is invalid"), ("", "is invalid")])
      + [
        ("SLUICE_PROMPTS", prompts("steps without a heading\n"), "contains an onboarding.txt without a step"),
        ("SLUICE_SYSTEM_PROMPT_FILE", directory.path, "cannot be read"),
        ("SLUICE_STATE", directory.file("file", "x"), "is not usable as the store"),
      ]
  }

  private func prompts(_ onboarding: String) -> String {
    let path = directory.path + "/prompts"
    unsafe mkdir(path, 0o700)
    _ = directory.file("prompts/onboarding.txt", onboarding)
    return path
  }

  @Test("What is valid but probably not meant is a warning, which names the variable and the reason")
  func dubious() throws {
    let key = directory.file("key", "sk-1")
    let secret = directory.file("secret", String(repeating: "k", count: 40))
    for path in [key, secret] { unsafe chmod(path, 0o644) }
    let digest = Digest(of: "t").hex
    let expired = directory.file("expired", "alice:\(digest):2020-01-01\n")
    let empty = directory.file("empty", "# none\n")
    let remote = [
      "SLUICE_UPSTREAM_URL": "http://models.example/v1", "SLUICE_UPSTREAM_KEY_FILE": key, "SLUICE_MODEL": "m",
    ]
    let rows: [(environment: [String: String], warning: String)] = [
      (["SLUICE_MODLE": "x"], "SLUICE_MODLE is not a setting; did you mean SLUICE_MODEL?"),
      (
        ["SLUICE_STREAM_PER_USER": "3"],
        "SLUICE_STREAM_PER_USER is not a setting; did you mean SLUICE_STREAMS_PER_USER?"
      ),
      (["SLUICE_UPSTREAM_URI": "x"], "SLUICE_UPSTREAM_URI is not a setting; did you mean SLUICE_UPSTREAM_URL?"),
      (["SLUICE_SERVICE_HOST": "10.0.0.1"], "SLUICE_SERVICE_HOST is not a setting"),
      (["SLUICE_MODEL": "m # the big one"], "SLUICE_MODEL contains \"#\": a comment must be on a line of its own"),
      (["SLUICE_MAX_MESSAGE": "2M"], "SLUICE_MAX_MESSAGE is greater than SLUICE_MAX_BODY"),
      (["SLUICE_STREAM_TIMEOUT": "40s"], "SLUICE_FIRST_TOKEN_TIMEOUT is greater than SLUICE_STREAM_TIMEOUT"),
      (["SLUICE_STREAM_TIMEOUT": "20s"], "SLUICE_IDLE_TIMEOUT is greater than SLUICE_STREAM_TIMEOUT"),
      (["SLUICE_HEARTBEAT": "2m"], "SLUICE_HEARTBEAT is at least 60s"),
      (["SLUICE_MAX_STREAMS": "5"], "SLUICE_STREAMS_PER_USER is greater than SLUICE_MAX_STREAMS"),
      (
        ["SLUICE_LISTEN": "127.0.0.1:9000", "LISTEN_FDS": "1"],
        "SLUICE_LISTEN is ignored, because systemd passes a socket"
      ),
      (["SLUICE_UPSTREAM_URL": "https://a/v1"], "SLUICE_MODEL is not set: the model server must choose one"),
      (remote, "SLUICE_UPSTREAM_KEY_FILE names a file that all users can read: chmod o-r \(key)"),
      (remote, "SLUICE_UPSTREAM_URL starts with http://: the API key is sent without encryption"),
      (
        ["SLUICE_AUTH": "", "SLUICE_JWT_KEYS_FILE": secret], "SLUICE_JWT_KEYS_FILE names a file that all users can read"
      ),
      (
        ["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": empty],
        "SLUICE_TOKENS_FILE contains no token: every request is refused"
      ),
      (["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": expired], "SLUICE_TOKENS_FILE contains only expired tokens"),
    ]
    for (environment, warning) in rows {
      let found = try warnings(["SLUICE_AUTH": "none"].merging(environment) { $1 })
      #expect(found.contains { $0.hasPrefix(warning) }, "\(environment): \(found)")
    }
    // What is meant is no warning.
    unsafe chmod(key, 0o600)
    let local = [
      "SLUICE_UPSTREAM_URL": "http://127.0.0.1:11434/v1", "SLUICE_UPSTREAM_KEY_FILE": key, "SLUICE_MODEL": "m",
    ]
    let valid = directory.file("valid", "alice:\(digest):2020-01-01\nbob:\(digest)\n")
    let right = local.merging(["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": valid, "SLUICE_OWN": "off", "PATH": "/bin"]) {
      $1
    }
    #expect(try warnings(right) == [])
  }

  @Test("A user name and a password in a URL are not shown")
  func passwords() throws {
    #expect(withoutPassword("https://u:p@host/v1") == "https://…@host/v1")
    #expect(withoutPassword("https://u:p@x@host") == "https://…@host")
    for text in ["https://host/a@b", "host", "", "://", "unix:/a"] { #expect(withoutPassword(text) == text) }
    let url = "https://ann:pass55@models.example/v1"
    let configuration = try Configuration(["SLUICE_AUTH": "none", "SLUICE_UPSTREAM_URL": url])
    #expect(!configuration.summary(hasGenerator: false).contains { $0.value.contains("pass55") })
    #expect(!issues(["SLUICE_AUTH": "none", "SLUICE_UPSTREAM_URL": url + " "]).contains { $0.contains("pass55") })
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
    for name in ["a:b", "-h", "", "a b", "a#b"] {
      #expect(throws: StartError.self) { try Tokens.add(user: name, toFile: path) }
    }
    #expect(try String(contentsOfFile: path, encoding: .utf8) == text)
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
    let configuration = try Configuration([
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
    let configuration = try Configuration(["SLUICE_TOKENS_FILE": path])
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

extension Configuration {
  fileprivate init(_ environment: [String: String]) throws(ConfigurationError) {
    try self.init(environment: Environment(environment))
  }
}
