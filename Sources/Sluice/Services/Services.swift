import EventLoop
import FastCGI
import JSON
import Synchronization
import Upstream

/// What all requests on all loops share.
final class Services: Sendable {
  let configuration: Configuration
  let log: Log
  let pool: BlockingPool
  /// Where large bodies are parsed, few at a time: what one becomes is many times as large.
  let parsing = BlockingPool(maximumThreads: 2)
  let authenticator: any RequestAuthenticator
  let store: Store
  let turns: any TurnStore
  let generations = GenerationRegistry()
  let unsaved: UnsavedTurns
  let metrics = Metrics()
  let streamLimiter: Limiter
  /// Responses that call no model: as many may be in flight at once as streams.
  let requestLimiter: Limiter
  let prompts: Prompts
  let cors: CORS
  let redactionFiles = WatchedFiles { RedactionRules(parsing: $0) }
  /// By the names of their kinds, those that the configuration has everything for.
  private let generators: [String: GeneratorKind.Source]
  /// An embedder's, which is the only one then.
  private let customGenerator: TaskGenerator?
  private let draining = Atomic(false)
  private let environment: [String: String]
  /// Embedders'.
  private let customFeatures = Locked<[Feature]>([])
  let activity = RequestActivity()
  let freedMemory = FreedMemory()
  let descriptors: DescriptorBudget

  /// What an embedder gives instead of the built-in parts.
  struct CustomParts {
    var generator: (any Generator)?
    var authenticator: (any Authenticator)?
    var turnStore: (any TurnStore)?
  }

  init(
    _ configuration: Configuration, log: Log, pool: BlockingPool, environment: [String: String],
    descriptors plan: DescriptorPlan = .forProcess(loops: 1), custom: CustomParts = CustomParts()
  ) {
    let descriptors = DescriptorBudget(units: plan.connections)
    self.descriptors = descriptors
    self.configuration = configuration
    self.environment = environment
    self.log = log
    self.pool = pool
    authenticator =
      custom.authenticator.map { CustomAuthenticator($0, corsOrigins: configuration.corsOrigins) }
      ?? BuiltInAuthenticator(configuration, log: log, pool: pool)
    store = Store(root: configuration.state, pool: pool)
    turns = custom.turnStore ?? store
    let runtime = environment["RUNTIME_DIRECTORY"].flatMap { $0.split(separator: ":").first }
    unsaved = UnsavedTurns(store, turns: turns, directory: runtime.map { $0 + "/unsaved" }, log: log)
    requestLimiter = Limiter(store, sharesSlots: false, log: log)
    streamLimiter = Limiter(store, sharesSlots: CGIExchange.isStarted(in: environment), log: log)
    prompts = Prompts(directory: configuration.prompts)
    cors = CORS(origins: configuration.corsOrigins)
    customGenerator = custom.generator.map(TaskGenerator.init)
    let resources = GeneratorKind.Resources(
      environment: environment, maximumIdleConnections: plan.idleUpstreamConnections,
      isShortOfDescriptors: { descriptors.isShort })
    var generators: [String: GeneratorKind.Source] = [:]
    for kind in GeneratorKind.all where kind.requirements(configuration).isEmpty {
      generators[kind.name] = kind.source(configuration, resources)
    }
    self.generators = generators
  }

  /// The generator that a configuration selects.
  func generator(for configuration: Configuration) throws(Failure) -> any CallbackGenerator {
    if let customGenerator { return customGenerator }
    let kind = GeneratorKind.selected(by: configuration)
    // Reading the location's settings has made sure that it is there.
    guard let source = generators[kind.name] else {
      throw Failure.incompleteConfiguration("the generator \(kind.name) has not been made")
    }
    return source(configuration)
  }

  // MARK: Features

  func addFeature(_ feature: Feature) {
    customFeatures.withLock { features in
      if !features.contains(feature) { features.append(feature) }
    }
  }

  /// All features, the built-in ones first.
  var features: [Feature] { Feature.builtIn.map(\.feature) + customFeatures.withLock { $0 } }

  /// Whether a feature is on at a request's location.
  func isEnabled(_ feature: Feature, _ context: RequestContext) throws(Failure) -> Bool {
    let isBuiltIn = Feature.builtIn.contains { $0.feature == feature }
    if isBuiltIn { return context.configuration.isEnabled(feature) }
    guard let text = context.parameters[feature.name] ?? environment[feature.name], !text.isEmpty else { return true }
    do { return try SettingValue.flag(text) } catch {
      throw Failure.incompleteConfiguration("\(feature.name) \(error.reason), not \"\(text)\"")
    }
  }

  /// The models that can be requested, as far as they are known here: the configured one, or the name that stands for a
  /// generator without models. Empty where the generator lists them.
  func modelNames(_ configuration: Configuration) -> [String] {
    if let model = configuration.model { return [model] }
    if customGenerator != nil { return ["default"] }
    let kind = GeneratorKind.selected(by: configuration)
    return kind.listsModels ? [] : [kind.name]
  }

  /// Logs and counts that a request was refused, whoever refuses it.
  ///
  /// - Parameter fields: what the line says of the request.
  func recordRefusal(_ failure: Failure, fields request: JSON.Members) {
    var fields = request
    fields["status"] = .integer(failure.code.status)
    fields["error"] = .string(failure.code.name)
    fields["detail"] = failure.detail.map(JSON.string) ?? .null
    log.write(failure.code.logLevel, "request refused", fields)
    metrics.refused(failure.code)
  }

  /// Whether the server takes no further streams, because it is about to stop.
  var isDraining: Bool { draining.load(ordering: .relaxed) }

  func beginDraining() { draining.store(true, ordering: .relaxed) }
}
