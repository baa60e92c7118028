import EventLoop
import JSON
import Upstream

/// The parts of the services that the configuration determines. A reload replaces all of them; requests that have begun
/// keep theirs.
final class ConfiguredParts: Sendable {
  let configuration: Configuration
  let environment: Environment
  let authenticator: any RequestAuthenticator
  let prompts: Prompts
  let cors: CORS
  /// The available generators, by kind: those whose required settings are present.
  private let generators: [String: GeneratorKind.Source]
  /// The embedder's generator; if present, no other is used.
  private let customGenerator: TaskGenerator?

  /// - Parameters:
  ///   - earlier: the parts that these ones replace, whose generators' connections are kept where possible.
  init(
    _ configuration: Configuration, environment: Environment, custom: CustomParts,
    _ resources: GeneratorKind.Resources, log: Log, pool: BlockingPool, replacing earlier: ConfiguredParts? = nil
  ) {
    self.configuration = configuration
    self.environment = environment
    authenticator =
      custom.authenticator.map { CustomAuthenticator($0, corsOrigins: configuration.corsOrigins) }
      ?? BuiltInAuthenticator(configuration, log: log, pool: pool)
    prompts = Prompts(directory: configuration.prompts)
    cors = CORS(origins: configuration.corsOrigins)
    customGenerator = custom.generator.map(TaskGenerator.init)
    var generators: [String: GeneratorKind.Source] = [:]
    for kind in GeneratorKind.all where kind.requirements(configuration).isEmpty {
      let isShared = earlier.map { kind.sharesState($0.configuration, configuration) } ?? false
      generators[kind.name] = (isShared ? earlier?.generators[kind.name] : nil) ?? kind.source(configuration, resources)
    }
    self.generators = generators
  }

  /// The generator that the configuration of a request's location selects.
  func generator(for configuration: Configuration) throws(Failure) -> any CallbackGenerator {
    if let customGenerator { return customGenerator }
    let kind = GeneratorKind.selected(by: configuration)
    // The required settings were checked when the location's configuration was read.
    guard let source = generators[kind.name] else {
      throw Failure.incompleteConfiguration("the generator \(kind.name) has not been created")
    }
    return source(configuration)
  }

  /// Releases what the generators hold on a loop, except those that `later` has kept.
  func retireGenerators(notIn later: ConfiguredParts, on reactor: Reactor) {
    for (name, source) in generators {
      let (own, kept) = (source(configuration), later.generators[name]?(later.configuration))
      if (own as AnyObject) !== (kept as AnyObject?) { own.retire(on: reactor) }
    }
  }

  /// Returns the names of the models that can be requested, as far as they are known here: the configured model, or the
  /// name that stands for a generator without models. Empty if the generator lists its models itself.
  func modelNames(_ configuration: Configuration) -> [String] {
    if let model = configuration.model { return [model] }
    if customGenerator != nil { return ["default"] }
    let kind = GeneratorKind.selected(by: configuration)
    return kind.listsModels ? [] : [kind.name]
  }

  /// The generator, the address and the other parts that the process runs, by name.
  var summary: [(name: String, value: String)] { configuration.summary(hasGenerator: customGenerator != nil) }

  /// The same as fields of the log.
  var summaryFields: JSON.Members {
    var fields: JSON.Members = [:]
    for (name, value) in summary { fields[name] = .string(value) }
    return fields
  }
}
