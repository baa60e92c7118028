import EventLoop
import FastCGI
import JSON
import Synchronization
import Upstream

/// The state that all requests on all loops share.
final class Services: Sendable {
  let configuration: Configuration
  let log: Log
  let pool: BlockingPool
  /// The pool that parses large bodies, at most two at a time: parsed JSON takes many times the memory of its text.
  let parsing = BlockingPool(maximumThreads: 2)
  let authenticator: any RequestAuthenticator
  let store: Store
  let turns: any TurnStore
  let generations = GenerationRegistry()
  let transcripts = TranscriptRegistry()
  let webSockets = WebSocketActivity()
  let unsaved: UnsavedTurns
  let metrics = Metrics()
  let streamLimiter: Limiter
  /// The limiter of concurrent requests that call no model; the limits are the same as for streams.
  let requestLimiter: Limiter
  /// The limiter of WebSocket connections; the limits are the same as for streams.
  let webSocketLimiter: Limiter
  let prompts: Prompts
  let cors: CORS
  let redactionFiles = WatchedFiles { RedactionRules(parsing: $0) }
  /// The available generators, by kind: those whose required settings are present.
  private let generators: [String: GeneratorKind.Source]
  /// The embedder's generator; if present, no other is used.
  private let customGenerator: TaskGenerator?
  private let draining = Atomic(false)
  private let environment: [String: String]
  /// The embedder's features.
  private let customFeatures = Locked<[Feature]>([])
  /// The parameters that ``warnOnce(ofParameter:)`` has logged.
  private let ignoredParameters = Locked<Set<String>>([])
  let activity = RequestActivity()
  let freedMemory = FreedMemory()
  /// Whether the process serves one CGI request and then exits.
  private let isCGI: Bool
  let descriptors: DescriptorBudget

  /// An embedder's replacements for built-in parts.
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
    store = Store(root: configuration.state, pool: pool) {
      log.error("file of the store skipped", ["error": .string($0.description)])
    }
    turns = custom.turnStore ?? store
    let runtime = environment["RUNTIME_DIRECTORY"].flatMap { $0.split(separator: ":").first }
    unsaved = UnsavedTurns(store, turns: turns, directory: runtime.map { $0 + "/unsaved" }, log: log)
    requestLimiter = Limiter(store, sharesSlots: false, log: log)
    webSocketLimiter = Limiter(store, sharesSlots: false, log: log)
    isCGI = CGIExchange.isStarted(in: environment)
    streamLimiter = Limiter(store, sharesSlots: isCGI, log: log)
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
    // The required settings were checked when the location's configuration was read.
    guard let source = generators[kind.name] else {
      throw Failure.incompleteConfiguration("the generator \(kind.name) has not been created")
    }
    return source(configuration)
  }

  /// The generator, the address and the other parts that the process runs, by name.
  var summary: [(name: String, value: String)] { configuration.summary(hasGenerator: customGenerator != nil) }

  /// Whether streams can be read again at a request's location. A CGI program serves one client only.
  func canResume(_ configuration: Configuration) -> Bool { configuration.resume > .zero && !isCGI }

  /// The transports of streams at a request's location.
  func streamingBackend(_ configuration: Configuration) -> StreamingBackend {
    configuration.streamingBackend ?? (webSockets.isServed ? .both : .sse)
  }

  // MARK: Features

  func addFeature(_ feature: Feature) {
    customFeatures.withLock { features in
      if !features.contains(feature) { features.append(feature) }
    }
  }

  /// All features, the built-in ones first.
  var features: [Feature] { Feature.builtIn.map(\.feature) + customFeatures.withLock { $0 } }

  /// Returns whether a feature is enabled at a request's location.
  func isEnabled(_ feature: Feature, _ context: RequestContext) throws(Failure) -> Bool {
    let isBuiltIn = Feature.builtIn.contains { $0.feature == feature }
    if isBuiltIn { return context.configuration.isEnabled(feature) }
    guard let text = context.parameters[feature.name] ?? environment[feature.name], !text.isEmpty else { return true }
    do { return try SettingValue.flag(text) } catch {
      throw Failure.incompleteConfiguration("\(feature.name) \(error.reason), not \"\(text)\"")
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

  // MARK: Streams of an earlier process

  /// Asks the process from which this one has taken over, while it finishes its streams: a request, its object, and the
  /// user on whose behalf it is made. Returns whether it was done.
  let earlierProcess = Locked<(@Sendable (String, String, User) async -> Bool)?>(nil)

  /// Passes a connection, and the bytes of its request, to the earlier process. Returns whether that was possible.
  let passConnection = Locked<(@Sendable (CInt, [UInt8]) -> Bool)?>(nil)

  /// Passes a request to the earlier process if it is about a stream that is not one of this process.
  ///
  /// - Returns: whether it is passed on; `writer` must not be used then.
  func passOn(_ request: Request, _ writer: inout ResponseWriter) -> Bool {
    guard let pass = passConnection.withLock(\.self) else { return false }
    return writer.handOver(request.parameters, pass)
  }

  /// Stops a running stream of a user. Returns false if there is none.
  func stopStream(_ id: String, of user: User) async -> Bool {
    if generations.stop(id, for: user) { return true }
    return await earlierProcess.withLock(\.self)?("stop", id, user) ?? false
  }

  /// Stops the streams of a session that is being deleted, and waits for those whose turn is already being stored.
  ///
  /// - Returns: whether there was any such stream.
  func stopStreams(ofSession session: String, of user: User) async -> Bool {
    let isEarlier = await earlierProcess.withLock(\.self)?("stop-session", session, user) ?? false
    return await generations.stopStreams(ofSession: session, of: user) || isEarlier
  }

  // MARK: Log

  /// Logs a parameter of the web server that begins as a setting's but has no effect.
  func warnOnce(ofParameter name: String) {
    guard !customFeatures.withLock({ $0.contains { $0.name == name } }),
      ignoredParameters.withLock({ $0.count < 100 && $0.insert(name).inserted })
    else { return }
    let reason =
      Setting.byName[name] == nil
      ? Setting.unknown(name) : "applies to the whole process: set it in the environment, not with fastcgi_param"
    log.warning("parameter ignored", ["parameter": .string(name), "reason": .string(reason)])
  }

  /// Logs and counts a refused request.
  ///
  /// - Parameter fields: the fields of the log line that describe the request.
  func recordRefusal(_ failure: Failure, fields request: JSON.Members) {
    var fields = request
    fields["status"] = .integer(failure.code.status)
    fields["error"] = .string(failure.code.name)
    fields["detail"] = failure.detail.map(JSON.string) ?? .null
    log.write(failure.code.logLevel, "request refused", fields)
    metrics.countRefusal(failure.code)
  }

  /// Whether the server admits no more streams because it is shutting down.
  var isDraining: Bool { draining.load(ordering: .relaxed) }

  func beginDraining() { draining.store(true, ordering: .relaxed) }
}
