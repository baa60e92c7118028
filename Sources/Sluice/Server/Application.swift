import EventLoop
import FastCGI
import FoundationEssentials
import Glibc
import Upstream

/// A streaming backend behind a web server: the built-in endpoints and your own.
///
///     let application = try Application()
///     application.stream("GET", "/countdown") { context, stream in
///       for number in (1...10).reversed() {
///         try await stream.send("\(number) ")
///         try await Task.sleep(for: .seconds(1))
///       }
///     }
///     try await application.run()
///
/// It is configured by environment variables, which the README lists. Started by systemd, by spawn-fcgi, with
/// `SLUICE_LISTEN`, or as a CGI program, it serves the same endpoints.
///
/// Nothing is global: two applications in one process share neither routes nor limits. Use it from any thread.
public final class Application: Sendable {
  /// The version of this package.
  public static let version = "0.1.0"

  let services: Services
  private let environment: [String: String]
  private let routes: Locked<RouteTable>
  private let shutdown = Locked(Shutdown())

  /// What a cancelled ``run(handlesSignals:)`` reaches the server by.
  private struct Shutdown {
    var isRequested = false
    var begin: (@Sendable () -> Void)?
  }

  /// Reads the configuration. Every part has a default, which the configuration decides.
  ///
  /// - Parameters:
  ///   - generator: has the only say about what responds to prompts; `SLUICE_GENERATOR` selects one unless given.
  ///   - authenticator: has the only say about who sends requests, `SLUICE_AUTH` or not. Unless given, one of the settings
  ///     for tokens, JSON Web Tokens, REMOTE_USER or `SLUICE_AUTH=none` must be there.
  ///   - turnStore: keeps completed turns; files under `SLUICE_STATE` do unless given.
  ///   - environment: the variables; those of this process unless given.
  /// - Throws: ``ConfigurationError`` with every issue.
  public init(
    generator: (any Generator)? = nil, authenticator: (any Authenticator)? = nil, turnStore: (any TurnStore)? = nil,
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) throws(ConfigurationError) {
    self.environment = environment
    let configuration = try Configuration(environment: environment, hasAuthenticator: authenticator != nil)
    let descriptors = DescriptorPlan.forProcess(loops: configuration.loops)
    services = Services(
      configuration, log: Log(level: configuration.logLevel, environment: environment),
      pool: BlockingPool(maximumThreads: descriptors.fileThreads), environment: environment, descriptors: descriptors,
      custom: Services.CustomParts(generator: generator, authenticator: authenticator, turnStore: turnStore))
    routes = Locked(.builtIn(services))
  }

  /// Adds an endpoint that streams. Add all before ``run(handlesSignals:)``.
  ///
  /// - Parameters:
  ///   - method: an HTTP method, in upper case.
  ///   - path: where it is, from its slash on; a segment in braces is a parameter: `/rooms/{room}`. It must not be taken by
  ///     another route for the method; of several that match a request the first one added counts, a built-in one first.
  ///   - dialect: the wire format, unless the client selects another by `?dialect=`.
  ///   - isPublic: whether no authentication is needed. The user is `anonymous` then.
  ///   - countsAsMessage: whether a stream counts in `SLUICE_MESSAGES_PER_HOUR`.
  ///   - supportsIdempotencyKey: whether a POST can carry an `Idempotency-Key`: the complete text is then stored for an
  ///     hour, and the same request gets it again without the handler being called.
  ///   - feature: what turns the endpoint off, as an environment variable or a `fastcgi_param` that is `off`.
  ///   - handler: sends the response; see ``StreamHandler``. A ``Failure`` that it throws becomes the stream's error as
  ///     it is, any other error `internal`.
  public func stream(
    _ method: String, _ path: String, dialect: DialectKind = .events, isPublic: Bool = false,
    countsAsMessage: Bool = true, supportsIdempotencyKey: Bool = false, feature: Feature? = nil,
    _ handler: @escaping StreamHandler
  ) {
    if let feature { services.addFeature(feature) }
    let services = services
    let endpoint = StreamingEndpoint(
      dialect: dialect, feature: feature, countsAsMessage: countsAsMessage,
      supportsIdempotencyKey: supportsIdempotencyKey, retainsBody: true
    ) { context in
      try context.checkBody()
      return GenerationRequest(
        message: "", model: context.configuration.model, retainsText: false,
        produce: { generation, _ in
          let reactor = generation.reactor
          let stream = ResponseStream(generation) {
            try services.startGeneration(try services.completed($0, context), context, on: reactor)
          }
          try await handler(context, stream)
          return GenerationResult(completion: generation.relayedCompletion ?? Completion())
        })
    }
    add(Route([method], PathPattern(path), isPublic: isPublic, .stream(endpoint)))
  }

  /// Adds an endpoint that responds at once. Add all before ``run(handlesSignals:)``.
  ///
  /// - Parameters:
  ///   - method: an HTTP method, in upper case. GET answers HEAD too.
  ///   - path: where it is; a segment in braces is a parameter: `/rooms/{room}`.
  ///   - isPublic: whether no authentication is needed. The user is `anonymous` then.
  ///   - handler: returns the response; see ``RouteHandler``. A ``Failure`` that it throws becomes the error response.
  public func handle(
    _ method: String, _ path: String, isPublic: Bool = false, _ handler: @escaping RouteHandler
  ) {
    add(
      Route(
        [method], PathPattern(path), isPublic: isPublic,
        .handle { context in
          try context.checkBody()
          return try await handler(context)
        }))
  }

  private func add(_ route: Route) {
    let method = route.methods[0]
    precondition(
      !method.isEmpty && method.allSatisfy { $0.isASCII && $0.isUppercase },
      "\"\(method)\" must be an upper-case method")
    precondition(route.path.text.hasPrefix("/"), "the path \"\(route.path.text)\" must start with a slash")
    routes.withLock { routes in
      let isTaken = routes.routes.contains { $0.methods.contains(method) && $0.path.text == route.path.text }
      precondition(!isTaken, "the route \(method) \(route.path.text) exists already")
      routes.add(route)
    }
  }

  /// Serves until SIGTERM or SIGINT, or until the task is cancelled; then refuses new streams, waits for those that run,
  /// `SLUICE_DRAIN_TIMEOUT` at most, and returns. As a CGI program it serves the one request. Call it once.
  ///
  /// Event loops have threads of their own, of which the calling task waits for the main one.
  ///
  /// - Parameter handlesSignals: whether SIGTERM, SIGINT and SIGHUP are handled while it runs. A program that does so
  ///   itself passes false and cancels the task.
  /// - Throws: ``StartError`` when there is nothing to listen on, or not enough of something to start.
  public func run(handlesSignals: Bool = true) async throws {
    try await withTaskCancellationHandler {
      let result: Result<Void, StartError> = await withCheckedContinuation { continuation in
        do throws(SystemError) {
          let thread = try JoinableThread(name: "loop 0") {
            continuation.resume(
              returning: Result { () throws(StartError) in try self.runBlocking(handlesSignals: handlesSignals) })
          }
          thread.detach()
        } catch { continuation.resume(returning: .failure(StartError(message: "cannot start: \(error)"))) }
      }
      try result.get()
    } onCancel: {
      let begin = shutdown.withLock { shutdown in
        shutdown.isRequested = true
        return shutdown.begin
      }
      begin?()
    }
  }

  /// Like ``run(handlesSignals:)``, on the calling thread: for a program that does nothing else.
  package func runBlocking(handlesSignals: Bool = true) throws(StartError) {
    // A broken pipe is an error of the write that meets it. SIGUSR1 would be libfcgi's.
    Signals.block([SIGPIPE, SIGUSR1])
    ConnectionServer.initializeLibrary()
    defer { services.log.flush() }
    let watched = handlesSignals ? [SIGTERM, SIGINT, SIGHUP] : []
    if CGIExchange.isStarted(in: environment) { return try serveCGI(signals: watched) }
    let sockets = try ListeningSocket.all(services.configuration)
    var server: Server?
    var failure: SystemError?
    do throws(SystemError) {
      let loop = try EventLoop(name: "loop 0")
      try loop.run { reactor in
        let started = Server(services, routes: routes.withLock { $0 }, on: reactor)
        server = started
        do throws(SystemError) { try started.start(sockets, signals: watched) } catch {
          failure = error
          return loop.stop()
        }
        // Safe: the closure given to `execute` runs on the main loop, to which the server belongs, while it runs.
        let bound = unsafe LoopBound(started)
        let begin: @Sendable () -> Void = { loop.execute { _ in bound.value.drain() } }
        let isRequested = shutdown.withLock { shutdown in
          shutdown.begin = begin
          return shutdown.isRequested
        }
        if isRequested { begin() }
      }
    } catch { failure = error }
    shutdown.withLock { $0.begin = nil }
    withExtendedLifetime(server) {}
    if let failure { throw StartError(message: "cannot start: \(failure)") }
  }

  private func serveCGI(signals watched: [CInt]) throws(StartError) {
    let configuration = services.configuration
    let read = CGIExchange.readRequest(environment: environment, maximumBodyBytes: configuration.maximumBodyBytes)
    var signals: SignalWatch?
    defer { withExtendedLifetime(signals) {} }
    services.unsaved.restore()
    defer { services.unsaved.persist() }
    guard let request = read else { throw StartError(message: "the request body ended before CONTENT_LENGTH bytes") }
    let routes = routes.withLock { $0 }
    do throws(SystemError) {
      let loop = try EventLoop(name: "loop 0")
      try loop.run { reactor in
        let exchange = CGIExchange(on: reactor) { loop.stop() }
        // The web server ends the program: the stream says so, if it can, and is not waited for long.
        signals = try? SignalWatch(watched, on: reactor) { [services] _ in
          services.generations.terminateAll(.failed(Failure(.shuttingDown, "The server is shutting down.")))
          _ = reactor.schedule(after: .seconds(3)) { loop.stop() }
        }
        RequestDispatcher(services, routes: routes, on: reactor).respond(
          request,
          ResponseWriter(
            exchange, isHeadRequest: request.method == "HEAD", writeTimeout: configuration.writeTimeout))
      }
    } catch { throw StartError(message: "cannot start: \(error)") }
  }

  /// Responds to one request on the calling loop: for tests in memory.
  package func respond(_ request: Request, _ writer: consuming ResponseWriter, on reactor: Reactor) {
    var request = request
    if request.body.count > services.configuration.maximumBodyBytes {
      request.body = []
      request.isBodyTooLarge = true
    }
    RequestDispatcher(services, routes: routes.withLock { $0 }, on: reactor).respond(request, writer)
  }

  // For tests.
  package var runningStreams: Int { services.generations.count }
  package var isDraining: Bool { services.isDraining }
  package func retryUnsaved() async -> Int { await services.pool.run { [services] in services.unsaved.retry() } }

  /// The table of settings, as `sluice --help` prints it.
  package static var settingsHelp: String { Configuration.help }
}
