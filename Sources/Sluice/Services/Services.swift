import EventLoop
import FastCGI
import JSON
import Synchronization
import Upstream

/// The state that all requests on all loops share.
final class Services: Sendable {
  let log: Log
  let pool: BlockingPool
  /// The pool that parses large bodies, at most two at a time: parsed JSON takes many times the memory of its text.
  let parsing = BlockingPool(maximumThreads: 2)
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
  let redactionCounts: RedactionCounts
  let redactionFiles: WatchedFiles<RedactionRules>
  /// The parts for new requests.
  private let currentParts: Locked<ConfiguredParts>
  /// Serializes reloads.
  private let reloading = Locked(())
  private let custom: CustomParts
  private let generatorResources: GeneratorKind.Resources
  /// The variables of the process, without those of a file.
  private let processEnvironment: [String: String]
  private let draining = Atomic(false)
  /// The embedder's features.
  private let customFeatures = Locked<[Feature]>([])
  /// The parameters that ``warnOnce(ofParameter:)`` has logged.
  private let ignoredParameters = Locked<Set<String>>([])
  let activity = RequestActivity()
  let freedMemory = FreedMemory()
  /// Whether the process serves one CGI request and then exits.
  private let isCGI: Bool
  let descriptors: DescriptorBudget

  /// Creates the services from the variables of the process and of the file that they name. Blocks.
  ///
  /// - Throws: ``ConfigurationError`` with every issue.
  init(environment processEnvironment: [String: String], custom: CustomParts) throws(ConfigurationError) {
    let environment = Environment(processEnvironment)
    let configuration = try Configuration(
      environment: environment, hasAuthenticator: custom.authenticator != nil)
    let plan = DescriptorPlan.forProcess(loops: configuration.loops)
    let descriptors = DescriptorBudget(units: plan.connections)
    self.descriptors = descriptors
    self.processEnvironment = processEnvironment
    self.custom = custom
    let redactionCounts = RedactionCounts()
    self.redactionCounts = redactionCounts
    redactionFiles = WatchedFiles { RedactionRules(parsing: $0, redactionCounts) }
    let log = Log(level: configuration.logLevel, environment: processEnvironment)
    self.log = log
    let pool = BlockingPool(maximumThreads: plan.fileThreads)
    self.pool = pool
    store = Store(root: configuration.state, pool: pool) {
      log.error("file of the store skipped", ["error": .string($0.description)])
    }
    turns = custom.turnStore ?? store
    let runtime = environment.directory("RUNTIME_DIRECTORY")
    unsaved = UnsavedTurns(store, turns: turns, directory: runtime.map { $0 + "/unsaved" }, log: log)
    requestLimiter = Limiter(store, sharesSlots: false, log: log)
    webSocketLimiter = Limiter(store, sharesSlots: false, log: log)
    isCGI = CGIExchange.isStarted(in: processEnvironment)
    streamLimiter = Limiter(store, sharesSlots: isCGI, log: log)
    generatorResources = GeneratorKind.Resources(
      maximumIdleConnections: plan.idleUpstreamConnections, isShortOfDescriptors: { descriptors.isShort },
      connections: metrics.upstreamConnections,
      onCommandLine: { pid, line in
        log.info("command output", ["pid": .integer(Int(pid)), "line": .string(line)])
      })
    currentParts = Locked(
      ConfiguredParts(
        configuration, environment: environment, custom: custom, generatorResources, log: log, pool: pool))
  }

  // MARK: Configuration

  /// The parts for a request that begins now. A request that has begun uses ``RequestContext/parts``.
  var parts: ConfiguredParts { currentParts.withLock(\.self) }
  var configuration: Configuration { parts.configuration }
  var prompts: Prompts { parts.prompts }

  /// Reads the configuration again, for requests that begin from now on. Blocks.
  ///
  /// - Throws: ``ConfigurationError`` with every issue; the earlier configuration remains in effect.
  func reload() throws(ConfigurationError) {
    try reloading.withLock { (_) throws(ConfigurationError) in
      let earlier = parts
      let environment = Environment(processEnvironment)
      var configuration = try Configuration(environment: environment, hasAuthenticator: custom.authenticator != nil)
      for name in configuration.keepFixedSettings(of: earlier.configuration) {
        log.warning("setting not changed", ["variable": .string(name), "reason": "needs a restart"])
      }
      log.setLevel(configuration.logLevel)
      let parts = ConfiguredParts(
        configuration, environment: environment, custom: custom, generatorResources, log: log, pool: pool,
        replacing: earlier)
      currentParts.withLock { $0 = parts }
    }
    logWarnings()
  }

  /// The settings that are valid but probably not meant.
  var warnings: [ConfigurationError.Issue] {
    let parts = parts
    return parts.configuration.warnings(environment: parts.environment, features: features)
  }

  func logWarnings() {
    for warning in warnings { log.warning("configuration", warning.fields) }
  }

  /// Whether streams can be read again at a request's location. A CGI program serves one client only.
  func canResume(_ configuration: Configuration) -> Bool { configuration.resume > .zero && !isCGI }

  /// The transports of streams at a request's location.
  func streamingBackend(_ configuration: Configuration) -> StreamingBackend {
    configuration.streamingBackend ?? (webSockets.isServed ? .both : .sse)
  }

  /// The programs that generate responses.
  var commands: CommandSlots { generatorResources.commands }

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
    guard let text = context.parameters[feature.name] ?? context.parts.environment[feature.name], !text.isEmpty else {
      return true
    }
    do { return try SettingValue.flag(text) } catch {
      throw Failure.incompleteConfiguration("\(feature.name) \(error.reason), not \"\(text)\"")
    }
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
    return writer.handOver(request, pass)
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

  /// Ends the streams that were started with tokens that have been revoked since the last call. Blocks.
  func endRevokedStreams() {
    guard generations.count > 0, let isRevoked = parts.authenticator.revocations() else { return }
    generations.terminateAll(.failed(.revoked), where: isRevoked)
  }

  // MARK: Log

  /// Logs a parameter of the web server that begins as a setting's but has no effect.
  func warnOnce(ofParameter name: String) {
    // The parameters of a CGI program are its environment, where all settings are right.
    guard !isCGI, !customFeatures.withLock({ $0.contains { $0.name == name } }),
      ignoredParameters.withLock({ $0.count < 100 && $0.insert(name).inserted })
    else { return }
    let reason =
      Setting.byName[name] == nil
      ? Setting.unknown(name) : "applies to the whole process: set it in the environment, not with fastcgi_param"
    log.warning("parameter ignored", ["parameter": .string(name), "reason": .string(reason)])
  }

  /// The most recent failure that is not a client's, for the administrator.
  let lastFailure = Locked<String?>(nil)

  /// Keeps a failure as the last one, if it is the server's or the model server's.
  func noteFailure(_ failure: Failure) {
    guard failure.code.logLevel.priority < Log.Level.info.priority else { return }
    let cause = failure.cause.map { " (\($0))" } ?? ""
    lastFailure.withLock { $0 = "\(failure.code.name)\(cause) at \(Timestamp.now)" }
  }

  /// Logs and counts a refused request.
  ///
  /// - Parameter fields: the fields of the log line that describe the request.
  func recordRefusal(_ failure: Failure, fields request: JSON.Members) {
    var fields = request
    fields["status"] = .integer(failure.code.status)
    fields["error"] = .string(failure.code.name)
    fields["cause"] = failure.cause.map(JSON.string)
    fields["detail"] = failure.detail.map(JSON.string) ?? .null
    log.write(failure.code.logLevel, "request refused", fields)
    metrics.countRefusal(failure)
    noteFailure(failure)
  }

  /// Whether the server admits no more streams because it is shutting down.
  var isDraining: Bool { draining.load(ordering: .relaxed) }

  func beginDraining() { draining.store(true, ordering: .relaxed) }
}
