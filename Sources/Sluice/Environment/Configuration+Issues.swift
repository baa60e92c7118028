import EventLoop
import Glibc

extension Configuration {
  /// Returns the issues that the settings do not have individually: conflicts between them, and files that cannot be
  /// used.
  func crossSettingIssues(hasAuthenticator: Bool) -> [ConfigurationError.Issue] {
    var issues: [ConfigurationError.Issue] = []
    func check(_ variable: String, _ isRight: Bool, _ reason: String) {
      if !isRight { issues.append(.init(variable: variable, reason: reason)) }
    }
    issues += GeneratorKind.selected(by: self).requirements(self)
    for kind in GeneratorKind.all { issues += kind.check(self) }
    check(
      "SLUICE_TOKENS_FILE",
      hasAuthenticator || tokensFile != nil || jwtKeysFile != nil || trustsRemoteUser || isAuthenticationDisabled,
      "is not set: configure authentication with it, SLUICE_JWT_KEYS_FILE, SLUICE_TRUST_REMOTE_USER=on or SLUICE_AUTH=none"
    )
    check(
      "SLUICE_AUTH", !isAuthenticationDisabled || (tokensFile == nil && jwtKeysFile == nil),
      "is none, which conflicts with SLUICE_TOKENS_FILE and SLUICE_JWT_KEYS_FILE")
    for (variable, value) in [("SLUICE_JWT_ISSUER", jwtIssuer), ("SLUICE_JWT_AUDIENCE", jwtAudience)] {
      check(variable, value == nil || jwtKeysFile != nil, "is set, but SLUICE_JWT_KEYS_FILE is not")
    }
    if let jwtKeysFile {
      do {
        for issue in JWTKeys(parsing: try readFile(jwtKeysFile)).issues {
          check("SLUICE_JWT_KEYS_FILE", false, "is invalid: \(issue)")
        }
      } catch { check("SLUICE_JWT_KEYS_FILE", false, "cannot be read: \(error)") }
    }
    if let systemPromptFile {
      do { _ = try readFile(systemPromptFile) } catch {
        check("SLUICE_SYSTEM_PROMPT_FILE", false, "cannot be read: \(error)")
      }
    }
    do throws(SystemError) { try checkDirectory(state) } catch {
      check("SLUICE_STATE", false, "is not usable as the store: \(error)")
    }
    for (variable, address) in [("SLUICE_LISTEN", listen), ("SLUICE_WEBSOCKET_LISTEN", webSocketListen)] {
      guard case .unix(let path)? = address else { continue }
      do throws(SystemError) { try checkParent(of: path) } catch {
        check(variable, false, "names a socket that cannot be created: \(error)")
      }
    }
    if let prompts {
      do throws(SystemError) { _ = try checkPrompts(prompts) } catch {
        check("SLUICE_PROMPTS", false, "cannot be read: \(error)")
      }
      if let script = try? readFile(prompts + "/onboarding.txt") {
        check(
          "SLUICE_PROMPTS", OnboardingScript(parsing: String(decoding: script, as: UTF8.self)) != nil,
          "contains an onboarding.txt without a step; start a line with #")
      }
    }
    if let redactFile {
      do {
        for issue in RedactionRules(parsing: try readFile(redactFile)).issues {
          check("SLUICE_REDACT_FILE", false, "is invalid at \(issue)")
        }
      } catch { check("SLUICE_REDACT_FILE", false, "cannot be read: \(error)") }
    }
    if let tokensFile {
      do {
        let text = String(decoding: try readFile(tokensFile), as: UTF8.self)
        for issue in TokensFile(parsing: text).issues {
          check("SLUICE_TOKENS_FILE", false, "is invalid at \(issue)")
        }
      } catch { check("SLUICE_TOKENS_FILE", false, "cannot be read: \(error)") }
    }
    return issues
  }

  /// Throws unless a socket can be created at `path`, which must be in an existing directory.
  private func checkParent(of path: String) throws(SystemError) {
    let directory = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
    guard unsafe access(directory, W_OK | X_OK) == 0 else { throw SystemError("write to \(directory)") }
  }

  /// Throws if the prompts directory, or any prompt in it, cannot be read.
  private func checkPrompts(_ directory: String) throws(SystemError) {
    guard unsafe access(directory, R_OK | X_OK) == 0 else { throw SystemError("open \(directory)") }
    for part in [directory, directory + "/blocks"] {
      for name in try fileNames(in: part) where name.hasSuffix(".txt") { _ = try readFile("\(part)/\(name)") }
    }
  }
}
