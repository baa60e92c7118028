import Upstream

/// A kind of generator, which `SLUICE_GENERATOR` selects.
struct GeneratorKind: Sendable {
  /// The resources of the process that generators can use.
  struct Resources: Sendable {
    /// The number of idle connections that each loop keeps open.
    var maximumIdleConnections = 64
    /// Whether descriptors are so scarce that an idle connection should be closed. Called on a loop's thread.
    var isShortOfDescriptors: @Sendable () -> Bool = { false }
    /// The counts of connections to model servers.
    var connections = ConnectionCounts()
    /// The commands that run.
    var commands = CommandSlots()
    /// Receives each line that a command writes to standard error.
    var onCommandLine: CommandRun.LineHandler = { _, _ in }
  }

  /// Returns the generator for the configuration of a request's location.
  typealias Source = @Sendable (Configuration) -> any CallbackGenerator

  /// The value of `SLUICE_GENERATOR` that selects the kind.
  let name: String
  /// The settings that only this kind has.
  let settings: [Setting]
  /// Whether the kind is a default where `SLUICE_GENERATOR` is not set; the first such kind in ``all`` is selected.
  let isDefault: @Sendable (Configuration) -> Bool
  /// Applies environment variables that are not settings. Called before the settings are applied, which take
  /// precedence.
  var readEnvironment: @Sendable (inout Configuration, [String: String]) -> Void = { _, _ in }
  /// Whether the generator lists models of its own. Otherwise the kind's name is the only model.
  var listsModels = false
  /// Returns the issues that prevent the kind from being selected.
  var requirements: @Sendable (Configuration) -> [ConfigurationError.Issue] = { _ in [] }
  /// Returns the issues of the kind's settings, whether or not it is selected. Reads files.
  var check: @Sendable (Configuration) -> [ConfigurationError.Issue] = { _ in [] }
  /// Returns what is valid but probably not meant, if the kind is selected. Reads files.
  var warnings: @Sendable (Configuration) -> [ConfigurationError.Issue] = { _ in [] }
  /// Returns the kind and where its output comes from, for the administrator.
  let description: @Sendable (Configuration) -> String
  /// Whether generators for two configurations share their state, so that a reload of the configuration keeps it.
  var sharesState: @Sendable (Configuration, Configuration) -> Bool = { _, _ in true }
  /// Creates the generators' shared state. Called only if ``requirements`` returns no issues.
  let source: @Sendable (Configuration, Resources) -> Source

  /// All kinds. A new kind needs a file and an entry here. The last one must always be selectable.
  static let all = [upstream, command, echo]

  /// Returns the kind that a configuration selects.
  static func selected(by configuration: Configuration) -> GeneratorKind {
    let kind =
      configuration.generator.map { name in all.first { $0.name == name } } ?? all.first { $0.isDefault(configuration) }
    guard let kind else {
      preconditionFailure("the configuration names an unknown generator, or no generator is the default")
    }
    return kind
  }
}

extension Setting {
  /// All settings, in the order of `sluice --help`.
  static let all: [Setting] = [generator] + GeneratorKind.all.reversed().flatMap(\.settings) + general

  static let byName = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

  private static let generator: Setting = {
    let names = GeneratorKind.all.map(\.name)
    let list = names.dropFirst().reversed().joined(separator: ", ") + " or " + names[0]
    return perLocation("SLUICE_GENERATOR", "generator: \(list) (default: upstream if a URL is set, else echo)") {
      (c, text) throws(SettingError) in c.generator = try SettingValue.choice(text, of: names)
    }
  }()
}
