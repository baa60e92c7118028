import EventLoop
import FoundationEssentials
import Glibc

extension Configuration {
  /// Returns what is valid but probably not meant. `sluice --check` prints it, and the server logs it when it starts.
  ///
  /// - Parameters:
  ///   - environment: the variables that the configuration was read from.
  ///   - features: the features of the application, whose names are settings too.
  func warnings(environment: Environment, features: [Feature]) -> [ConfigurationError.Issue] {
    environment.warnings
      + environment.locating(
        unknownSettings(environment.variables, features) + commentedSettings(environment) + contradictions()
          + GeneratorKind.selected(by: self).warnings(self) + authenticationWarnings()
          + listenWarnings(environment))
  }

  /// Variables that look like settings. They are no errors, because Kubernetes sets some for a service with this name.
  private func unknownSettings(
    _ environment: [String: String], _ features: [Feature]
  ) -> [ConfigurationError.Issue] {
    let own = Set(features.map(\.name))
    return environment.keys.filter { $0.hasPrefix("SLUICE_") && Setting.byName[$0] == nil && !own.contains($0) }
      .sorted().map { .init(variable: $0, reason: Setting.unknown($0)) }
  }

  /// A comment behind a value is part of the value, in systemd's environment files too (systemd.exec(5)).
  private func commentedSettings(_ environment: Environment) -> [ConfigurationError.Issue] {
    Setting.all.compactMap { setting in
      guard let text = environment[setting.name], text.contains(" #") else { return nil }
      return .init(
        variable: setting.name,
        reason: "contains \"#\": a comment must be on a line of its own, else it is part of the value")
    }
  }

  private func contradictions() -> [ConfigurationError.Issue] {
    var found: [ConfigurationError.Issue] = []
    func check(_ variable: String, _ contradicts: Bool, _ reason: String) {
      if contradicts { found.append(.init(variable: variable, reason: reason)) }
    }
    check(
      "SLUICE_MAX_MESSAGE", maximumMessageBytes > maximumBodyBytes,
      "is greater than SLUICE_MAX_BODY, which no message can exceed")
    check(
      "SLUICE_FIRST_TOKEN_TIMEOUT", firstTokenTimeout > streamTimeout,
      "is greater than SLUICE_STREAM_TIMEOUT, which ends the stream before")
    check(
      "SLUICE_IDLE_TIMEOUT", idleTimeout > streamTimeout,
      "is greater than SLUICE_STREAM_TIMEOUT, which ends the stream before")
    check(
      "SLUICE_HEARTBEAT", heartbeat >= .seconds(60),
      "is at least 60s, after which many proxies close a connection that is silent")
    check(
      "SLUICE_STREAMS_PER_USER", maximumStreams > 0 && streamsPerUser > maximumStreams,
      "is greater than SLUICE_MAX_STREAMS")
    return found
  }

  private func authenticationWarnings() -> [ConfigurationError.Issue] {
    var found: [ConfigurationError.Issue] = []
    if let tokensFile, jwtKeysFile == nil, !trustsRemoteUser, let content = try? readFile(tokensFile) {
      let entries = TokensFile(parsing: String(decoding: content, as: UTF8.self)).entries
      if !entries.contains(where: { $0.expiry.map { Date() < $0 } ?? true }) {
        let reason = entries.isEmpty ? "contains no token" : "contains only expired tokens"
        found.append(
          .init(variable: "SLUICE_TOKENS_FILE", reason: "\(reason): every request is refused; see \"sluice token\""))
      }
    }
    if let jwtKeysFile, let content = try? readFile(jwtKeysFile), content.first != UInt8(ascii: "{") {
      // A JWK set of an identity provider is public; a secret is not.
      found += Self.openPermissions("SLUICE_JWT_KEYS_FILE", jwtKeysFile)
    }
    return found
  }

  /// Returns a warning if all users of the machine can read a file.
  static func openPermissions(_ variable: String, _ path: String) -> [ConfigurationError.Issue] {
    var status = stat()
    guard unsafe stat(path, &status) == 0, status.st_mode & S_IROTH != 0 else { return [] }
    return [.init(variable: variable, reason: "names a file that all users can read: chmod o-r \(path)")]
  }

  private func listenWarnings(_ environment: Environment) -> [ConfigurationError.Issue] {
    guard listen != nil, environment["LISTEN_FDS"] != nil else { return [] }
    return [.init(variable: "SLUICE_LISTEN", reason: "is ignored, because systemd passes a socket")]
  }

  // MARK: Summary

  /// Returns what would run, one line per part.
  ///
  /// - Parameter hasGenerator: whether the embedding program has a generator of its own.
  func summary(hasGenerator: Bool) -> [(name: String, value: String)] {
    [
      ("generator", hasGenerator ? "the application's own" : GeneratorKind.selected(by: self).description(self)),
      ("model", model ?? "the client's"),
      ("address", listen?.description ?? "systemd's socket, or descriptor 0"), ("store", state),
      ("authentication", authentication),
    ]
  }

  private var authentication: String {
    if isAuthenticationDisabled { return "none: every request is served" }
    let ways = [
      tokensFile.map { "tokens in \($0)" }, jwtKeysFile.map { "JSON Web Tokens with the keys in \($0)" },
      trustsRemoteUser ? "REMOTE_USER of the web server" : nil,
    ]
    let configured = ways.compactMap(\.self)
    return configured.isEmpty ? "the application's own" : configured.joined(separator: ", ")
  }
}

extension Setting {
  /// Returns why a name that begins as a setting's is probably a mistake, as the end of a sentence.
  static func unknown(_ name: String) -> String {
    let nearest = all.map { ($0.name, distance(name, $0.name)) }.min { $0.1 < $1.1 }
    guard let nearest, nearest.1 <= max(2, name.count / 5) else { return "is not a setting; see sluice --help" }
    return "is not a setting; did you mean \(nearest.0)?"
  }

  /// Returns the number of characters to insert, remove or replace to get from one name to the other (Levenshtein).
  private static func distance(_ first: String, _ second: String) -> Int {
    let (first, second) = (Array(first.utf8), Array(second.utf8))
    var row = Array(0...second.count)
    for (i, a) in first.enumerated() {
      var diagonal = row[0]
      row[0] = i + 1
      for (j, b) in second.enumerated() {
        (diagonal, row[j + 1]) = (row[j + 1], min(diagonal + (a == b ? 0 : 1), row[j] + 1, row[j + 1] + 1))
      }
    }
    return row[second.count]
  }
}
