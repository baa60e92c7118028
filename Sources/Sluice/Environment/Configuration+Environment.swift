extension Configuration {
  /// Reads all settings from an environment. An empty variable counts as unset.
  ///
  /// - Parameter hasAuthenticator: whether the embedding program authenticates requests, so that no setting is required
  ///   for it.
  /// - Throws: all issues, each with the name of its variable. Files named by the settings are checked too.
  init(environment: [String: String], hasAuthenticator: Bool = false) throws(ConfigurationError) {
    let systemState = environment["STATE_DIRECTORY"].flatMap { $0.split(separator: ":").first.map(String.init) }
    self.init(state: systemState ?? "./state")
    for kind in GeneratorKind.all { kind.readEnvironment(&self, environment) }
    var issues: [ConfigurationError.Issue] = []
    for setting in Setting.all {
      guard let text = environment[setting.name], !text.isEmpty else { continue }
      do { try setting.set(&self, text) } catch {
        issues.append(.init(variable: setting.name, reason: "\(error.reason), not \"\(text)\""))
      }
    }
    issues += crossSettingIssues(hasAuthenticator: hasAuthenticator)
    guard issues.isEmpty else { throw ConfigurationError(issues: issues) }
  }

  /// The table of settings printed by `sluice --help`.
  static var help: String {
    let width = (Setting.all.map(\.name.count).max() ?? 0) + 2
    return Setting.all.map { setting in
      let name = setting.name + (setting.isPerLocation ? "*" : "")
      return name + String(repeating: " ", count: width - name.count) + setting.meaning
    }.joined(separator: "\n")
  }
}
