import FastCGI

extension Configuration {
  /// Returns the configuration for one request: settings that the web server passes for its location take precedence. A
  /// client's header fields cannot change settings, because their names start with `HTTP_`.
  func applying(_ parameters: Parameters) throws(ConfigurationError) -> Configuration {
    var configuration = self
    for (name, text) in parameters.serverParameters where !text.isEmpty {
      guard let setting = Setting.byName[name], setting.isPerLocation else { continue }
      do { try setting.set(&configuration, text) } catch {
        throw ConfigurationError(issues: [.init(variable: name, reason: "\(error.reason), not \"\(text)\"")])
      }
    }
    let issues = GeneratorKind.selected(by: configuration).requirements(configuration)
    guard issues.isEmpty else { throw ConfigurationError(issues: issues) }
    return configuration
  }
}
