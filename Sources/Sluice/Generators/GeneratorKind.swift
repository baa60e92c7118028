import Upstream

/// What `SLUICE_GENERATOR` selects.
struct GeneratorKind: Sendable {
  /// What generators may need of the process they run in.
  struct Resources: Sendable {
    var environment: [String: String] = [:]
    /// Connections that each loop keeps open without using them.
    var maximumIdleConnections = 64
    /// Whether a connection should rather be closed than kept. Called on a loop's thread.
    var isShortOfDescriptors: @Sendable () -> Bool = { false }
  }

  /// Returns the generator for the configuration of a request's location.
  typealias Source = @Sendable (Configuration) -> any CallbackGenerator

  /// The value of `SLUICE_GENERATOR` that selects it.
  let name: String
  /// The settings that only it has.
  let settings: [Setting]
  /// Whether it is selected where `SLUICE_GENERATOR` is not set; the first such kind is.
  let isDefault: @Sendable (Configuration) -> Bool
  /// Applies what an environment says besides the settings.
  var readEnvironment: @Sendable (inout Configuration, [String: String]) -> Void = { _, _ in }
  /// Whether it has models of its own, which it lists; the others go by their name.
  var listsModels = false
  /// Returns what keeps it from being selected.
  var requirements: @Sendable (Configuration) -> [ConfigurationError.Issue] = { _ in [] }
  /// Looks at its settings, whether or not it is selected; reads files.
  var check: @Sendable (Configuration) -> [ConfigurationError.Issue] = { _ in [] }
  /// Makes what all requests share, once. Called only where ``requirements`` has nothing to say.
  let source: @Sendable (Configuration, Resources) -> Source

  /// The registry: a new kind is a file and a line here. The last one must always be selectable.
  static let all = [upstream, echo]

  /// The kind that a configuration selects.
  static func selected(by configuration: Configuration) -> GeneratorKind {
    let kind =
      configuration.generator.map { name in all.first { $0.name == name } } ?? all.first { $0.isDefault(configuration) }
    guard let kind else { preconditionFailure("a kind is named that is none, or none is the default") }
    return kind
  }
}

extension Setting {
  /// All settings, in the order of `sluice --help`.
  static let all: [Setting] = [generator] + GeneratorKind.all.reversed().flatMap(\.settings) + general

  static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

  private static let generator: Setting = {
    let names = GeneratorKind.all.map(\.name)
    let list = names.reversed().joined(separator: " or ")
    return perLocation("SLUICE_GENERATOR", "generator: \(list) (default: upstream if a URL is set, else echo)") {
      (c, text) throws(SettingError) in c.generator = try SettingValue.choice(text, of: names)
    }
  }()
}
