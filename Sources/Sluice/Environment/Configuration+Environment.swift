extension Configuration {
  /// Reads all settings from an environment. An empty variable counts as unset.
  ///
  /// - Parameter hasAuthenticator: whether the embedding program authenticates requests, so that no setting is required
  ///   for it.
  /// - Throws: all issues, each with the name of its variable. Files named by the settings are checked too.
  init(environment: Environment, hasAuthenticator: Bool = false) throws(ConfigurationError) {
    self.init(state: environment.directory("STATE_DIRECTORY") ?? "./state")
    for kind in GeneratorKind.all { kind.readEnvironment(&self, environment.variables) }
    var issues = environment.issues
    for setting in Setting.all {
      guard let text = environment[setting.name], !text.isEmpty else { continue }
      do { try setting.set(&self, text) } catch {
        issues.append(.init(variable: setting.name, reason: "\(error.reason), not \"\(withoutPassword(text))\""))
      }
    }
    issues += crossSettingIssues(hasAuthenticator: hasAuthenticator)
    guard issues.isEmpty else { throw ConfigurationError(issues: environment.locating(issues)) }
  }

  /// Takes the values of settings that cannot change while the process runs from an earlier configuration.
  ///
  /// - Returns: the names of those that have another value.
  mutating func keepFixedSettings(of earlier: Configuration) -> [String] {
    var changed: [String] = []
    func keep<Value: Equatable>(_ name: String, _ path: WritableKeyPath<Configuration, Value>) {
      if exchange(&self[keyPath: path], with: earlier[keyPath: path]) != earlier[keyPath: path] { changed.append(name) }
    }
    keep("SLUICE_STATE", \.state)
    keep("SLUICE_LISTEN", \.listen)
    keep("SLUICE_WEBSOCKET_LISTEN", \.webSocketListen)
    keep("SLUICE_LOOPS", \.loops)
    keep("SLUICE_COALESCE", \.coalescesEvents)
    return changed
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
