import EventLoop
import FastCGI
import Glibc

/// The configuration has mistakes: all of them.
public struct ConfigurationError: Error, Sendable, CustomStringConvertible {
  /// One mistake: the variable and what would be right.
  public struct Mistake: Sendable, Equatable, CustomStringConvertible {
    public let variable: String
    public let reason: String
    public var description: String { "\(variable) \(reason)" }
  }

  public let mistakes: [Mistake]
  public var description: String { mistakes.map(\.description).joined(separator: "\n") }
}

extension Configuration {
  /// Reads all settings from an environment. An empty variable counts as unset.
  ///
  /// - Throws: every mistake, each with its variable's name. Files that are named are looked at too.
  public init(environment: [String: String]) throws(ConfigurationError) {
    let systemState = environment["STATE_DIRECTORY"].flatMap { $0.split(separator: ":").first.map(String.init) }
    self.init(state: systemState ?? "./state")
    if let credentials = environment["CREDENTIALS_DIRECTORY"] {
      let path = credentials + "/upstream-key"
      // One that is there and cannot be read is a mistake, and no reason to ask without a key.
      var status = stat()
      if unsafe lstat(path, &status) == 0 || errno != ENOENT { upstreamKeyFile = path }
    }
    var mistakes: [ConfigurationError.Mistake] = []
    for setting in Setting.all {
      guard let text = environment[setting.name], !text.isEmpty else { continue }
      do { try setting.set(&self, text) } catch {
        mistakes.append(.init(variable: setting.name, reason: "\(error.reason), not \"\(text)\""))
      }
    }
    mistakes += contradictions()
    guard mistakes.isEmpty else { throw ConfigurationError(mistakes: mistakes) }
  }

  /// What each setting allows but all together do not.
  private func contradictions() -> [ConfigurationError.Mistake] {
    var mistakes: [ConfigurationError.Mistake] = []
    func check(_ variable: String, _ isRight: Bool, _ reason: String) {
      if !isRight { mistakes.append(.init(variable: variable, reason: reason)) }
    }
    check(
      "SLUICE_GENERATOR", effectiveGenerator != .upstream || upstreamURL != nil,
      "is upstream, which needs SLUICE_UPSTREAM_URL")
    check(
      "SLUICE_TOKENS_FILE", tokensFile != nil || jwtKeysFile != nil || trustsRemoteUser || isAuthenticationDisabled,
      "must be set, or else SLUICE_JWT_KEYS_FILE, SLUICE_TRUST_REMOTE_USER=on or SLUICE_AUTH=none: who may ask?")
    check(
      "SLUICE_AUTH", !isAuthenticationDisabled || (tokensFile == nil && jwtKeysFile == nil),
      "is none, but SLUICE_TOKENS_FILE or SLUICE_JWT_KEYS_FILE is set: which one counts?")
    for (variable, value) in [("SLUICE_JWT_ISSUER", jwtIssuer), ("SLUICE_JWT_AUDIENCE", jwtAudience)] {
      check(variable, value == nil || jwtKeysFile != nil, "is set, but not SLUICE_JWT_KEYS_FILE")
    }
    if let jwtKeysFile {
      do {
        for mistake in JWTKeys(parsing: try readFile(jwtKeysFile)).mistakes {
          check("SLUICE_JWT_KEYS_FILE", false, "has a mistake: \(mistake)")
        }
      } catch { check("SLUICE_JWT_KEYS_FILE", false, "cannot be read: \(error)") }
    }
    for (variable, path) in [
      ("SLUICE_UPSTREAM_KEY_FILE", upstreamKeyFile), ("SLUICE_SYSTEM_PROMPT_FILE", systemPromptFile),
    ] {
      guard let path else { continue }
      do { _ = try readFile(path) } catch { check(variable, false, "cannot be read: \(error)") }
    }
    if let key = upstreamKeyFile.flatMap({ try? readFile($0) }).map({ String(decoding: $0, as: UTF8.self).trimmed }) {
      check("SLUICE_UPSTREAM_KEY_FILE", !key.isEmpty, "names an empty file")
      check(
        "SLUICE_UPSTREAM_KEY_FILE", FieldValue(String(key)) != nil,
        "names a file of more than one line: it must contain the API key and nothing else")
    }
    do throws(SystemError) { try checkFolder(state) } catch {
      check("SLUICE_STATE", false, "cannot be the store: \(error)")
    }
    if let prompts {
      do throws(SystemError) { _ = try checkPrompts(prompts) } catch {
        check("SLUICE_PROMPTS", false, "cannot be read: \(error)")
      }
      if let script = try? readFile(prompts + "/onboarding.txt") {
        check(
          "SLUICE_PROMPTS", OnboardingScript(parsing: String(decoding: script, as: UTF8.self)) != nil,
          "has an onboarding.txt without a step: a line that begins with #")
      }
    }
    if let redactFile {
      do {
        for mistake in Redactions(parsing: try readFile(redactFile)).mistakes {
          check("SLUICE_REDACT_FILE", false, "has a mistake in \(mistake)")
        }
      } catch { check("SLUICE_REDACT_FILE", false, "cannot be read: \(error)") }
    }
    if let tokensFile {
      do {
        let text = String(decoding: try readFile(tokensFile), as: UTF8.self)
        for mistake in TokensFile(parsing: text).mistakes {
          check("SLUICE_TOKENS_FILE", false, "has a mistake in \(mistake)")
        }
      } catch { check("SLUICE_TOKENS_FILE", false, "cannot be read: \(error)") }
    }
    return mistakes
  }

  /// Looks whether the folder of prompts is there, and everything in it can be read.
  private func checkPrompts(_ folder: String) throws(SystemError) {
    guard unsafe access(folder, R_OK | X_OK) == 0 else { throw SystemError("open \(folder)") }
    for part in [folder, folder + "/blocks"] {
      for name in try fileNames(in: part) where name.hasSuffix(".txt") { _ = try readFile("\(part)/\(name)") }
    }
  }

  /// The configuration for one request: what the web server sets for its location wins. A client's headers cannot:
  /// their names begin with `HTTP_`.
  func applying(_ parameters: Parameters) throws(ConfigurationError) -> Configuration {
    var configuration = self
    for (name, text) in parameters.ofServer where !text.isEmpty {
      guard let setting = Setting.byName[name], setting.isPerLocation else { continue }
      do { try setting.set(&configuration, text) } catch {
        throw ConfigurationError(mistakes: [.init(variable: name, reason: "\(error.reason), not \"\(text)\"")])
      }
    }
    if configuration.effectiveGenerator == .upstream, configuration.upstreamURL == nil {
      throw ConfigurationError(
        mistakes: [.init(variable: "SLUICE_GENERATOR", reason: "is upstream, which needs SLUICE_UPSTREAM_URL")])
    }
    return configuration
  }
}
