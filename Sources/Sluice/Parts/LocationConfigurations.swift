import FastCGI

/// The configurations of the web server's locations, each created once. Belongs to its loop.
///
/// A location passes the same settings with every request, and applying them costs more than reading a request.
final class LocationConfigurations {
  private let base: SharedConfiguration
  private let onIgnored: (String) -> Void
  private var configurations: [[UInt8]: SharedConfiguration] = [:]

  /// More combinations of settings than a web server's configuration has, unless their values are variables.
  private static let maximumCount = 256
  private static let prefix = Array("SLUICE_".utf8)
  /// The names of the settings that a location can set, by length.
  private static let names = Dictionary(
    grouping: Setting.all.filter(\.isPerLocation).map { Array($0.name.utf8) }, by: \.count)

  /// Creates the configurations of one loop.
  ///
  /// - Parameter onIgnored: called with the name of each variable that begins as a setting's but has no effect, once
  ///   for each combination of settings.
  init(_ parts: ConfiguredParts, onIgnored: @escaping (String) -> Void) {
    base = SharedConfiguration(parts.configuration, parts)
    self.onIgnored = onIgnored
  }

  /// Returns the configuration for a request with `parameters`.
  ///
  /// - Throws: what ``Configuration/applying(_:)`` throws; such a configuration is not stored.
  func configuration(for parameters: Parameters) throws(ConfigurationError) -> SharedConfiguration {
    let key = parameters.assignments { name in
      // Most names begin with other letters.
      (name.first == Self.prefix[0] && name.starts(with: Self.prefix))
        || Self.names[name.count]?.contains { $0.elementsEqual(name) } ?? false
    }
    if key.isEmpty { return base }
    if let configuration = configurations[key] { return configuration }
    for (name, _) in parameters.serverParameters where name.hasPrefix("SLUICE_") {
      if Setting.byName[name]?.isPerLocation != true { onIgnored(name) }
    }
    let configuration = SharedConfiguration(try base.values.applying(parameters), base.parts)
    if configurations.count >= Self.maximumCount { configurations = [:] }
    configurations[key] = configuration
    return configuration
  }
}
