import FastCGI

/// The configurations of the web server's locations, each created once. Belongs to its loop.
///
/// A location passes the same settings with every request, and applying them costs more than reading a request.
final class LocationConfigurations {
  private let base: SharedConfiguration
  private var configurations: [[UInt8]: SharedConfiguration] = [:]

  /// More combinations of settings than a web server's configuration has, unless their values are variables.
  private static let maximumCount = 256
  /// The names of the settings that a location can set, by length.
  private static let names = Dictionary(
    grouping: Setting.all.filter(\.isPerLocation).map { Array($0.name.utf8) }, by: \.count)

  init(_ base: SharedConfiguration) { self.base = base }

  /// Returns the configuration for a request with `parameters`.
  ///
  /// - Throws: what ``Configuration/applying(_:)`` throws; such a configuration is not stored.
  func configuration(for parameters: Parameters) throws(ConfigurationError) -> SharedConfiguration {
    let key = parameters.assignments { name in
      Self.names[name.count]?.contains { $0.elementsEqual(name) } ?? false
    }
    if key.isEmpty { return base }
    if let configuration = configurations[key] { return configuration }
    let configuration = SharedConfiguration(try base.values.applying(parameters))
    if configurations.count >= Self.maximumCount { configurations = [:] }
    configurations[key] = configuration
    return configuration
  }
}
