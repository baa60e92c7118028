import EventLoop
import FastCGI
import FoundationEssentials
import Glibc
import Upstream

/// A streaming backend behind a web server. It serves the built-in endpoints and your own.
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
/// Environment variables configure it; the README lists them. It serves the same endpoints whether it is started by
/// systemd, by spawn-fcgi, with `SLUICE_LISTEN` or as a CGI program.
///
/// There is no global state: two applications in one process share neither routes nor limits. An application can be
/// used from any thread.
public final class Application: Sendable {
  /// The version of this package.
  public static let version = "0.1.0"

  let services: Services
  private let environment: [String: String]
  private let routes: Locked<RouteTable>
  private let control = Locked(Control())

  /// The means by which other threads control a running server.
  private struct Control {
    /// Whether the task of ``run(handlesSignals:)`` was cancelled.
    var isShutdownRequested = false
    var drain: (@Sendable () -> Void)?
    var applyConfiguration: (@Sendable () -> Void)?
  }

  /// Creates an application from a configuration, which determines the default of each omitted part.
  ///
  /// - Parameters:
  ///   - generator: produces all model output. If omitted, `SLUICE_GENERATOR` selects a built-in generator.
  ///   - authenticator: is the only authenticator, even with `SLUICE_AUTH=none`. If omitted, tokens, JSON Web Tokens,
  ///     REMOTE_USER or `SLUICE_AUTH=none` must be configured.
  ///   - turnStore: stores completed turns. If omitted, they are stored in files under `SLUICE_STATE`.
  ///   - environment: the variables to read; by default, those of this process.
  /// - Throws: ``ConfigurationError`` with every issue.
  public init(
    generator: (any Generator)? = nil, authenticator: (any Authenticator)? = nil, turnStore: (any TurnStore)? = nil,
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) throws(ConfigurationError) {
    self.environment = environment
    services = try Services(
      environment: environment,
      custom: CustomParts(generator: generator, authenticator: authenticator, turnStore: turnStore))
    routes = Locked(.builtIn(services))
  }

  /// Adds a streaming endpoint. All endpoints must be added before ``run(handlesSignals:)``.
  ///
  /// - Parameters:
  ///   - method: the HTTP method, in upper case.
  ///   - path: the path, which starts with a slash; a segment in braces is a parameter: `/rooms/{room}`. No other route
  ///     can have the same method and path. If several routes match a request, the first one added serves it; the
  ///     built-in ones come first.
  ///   - dialect: the wire format, unless the client selects another with `?dialect=`.
  ///   - isPublic: whether no authentication is needed; the user is then `anonymous`.
  ///   - countsAsMessage: whether a stream counts toward `SLUICE_MESSAGES_PER_HOUR`.
  ///   - supportsIdempotencyKey: whether a POST can carry an `Idempotency-Key`. The complete text is then stored for
  ///     one hour, and a repeat of the request receives it without a call of the handler.
  ///   - feature: the flag that disables the endpoint: an environment variable or `fastcgi_param` that is `off`.
  ///   - handler: sends the response; see ``StreamHandler``. A ``Failure`` or ``GeneratorError`` that it throws becomes
  ///     the stream's error; any other error becomes `internal`.
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

  /// Adds a non-streaming endpoint. All endpoints must be added before ``run(handlesSignals:)``.
  ///
  /// - Parameters:
  ///   - method: the HTTP method, in upper case. An endpoint for GET also serves HEAD.
  ///   - path: the path, which starts with a slash; a segment in braces is a parameter: `/rooms/{room}`.
  ///   - isPublic: whether no authentication is needed; the user is then `anonymous`.
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
      let exists = routes.routes.contains { $0.methods.contains(method) && $0.path.text == route.path.text }
      precondition(!exists, "the route \(method) \(route.path.text) exists already")
      routes.add(route)
    }
  }

  /// Serves requests until SIGTERM or SIGINT arrives or the task is cancelled. It then refuses new streams, waits at
  /// most `SLUICE_DRAIN_TIMEOUT` for running ones, and returns. As a CGI program, it serves one request. Call it once.
  ///
  /// Event loops run on their own threads; the calling task waits for the thread of the main loop.
  ///
  /// - Parameter handlesSignals: whether SIGTERM, SIGINT, SIGHUP and SIGUSR2 are handled while it runs. A program that
  ///   handles them itself passes false and cancels the task.
  /// - Throws: ``StartError`` when there is no socket to listen on, or when a system resource is not available.
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
      let drain = control.withLock { control in
        control.isShutdownRequested = true
        return control.drain
      }
      drain?()
    }
  }

  /// Does the same as ``run(handlesSignals:)`` on the calling thread, for a program that does nothing else.
  package func runBlocking(handlesSignals: Bool = true) throws(StartError) {
    // A write to a broken pipe returns an error instead. SIGUSR1 is blocked because libfcgi would handle it.
    Signals.block([SIGPIPE, SIGUSR1])
    defer { services.log.flush() }
    let watched = handlesSignals ? [SIGTERM, SIGINT, SIGHUP, SIGUSR2] : []
    if CGIExchange.isStarted(in: environment) { return try serveCGI(signals: watched) }
    services.logWarnings()
    var server: Server?
    var failure: StartError?
    do throws(SystemError) {
      let loop = try EventLoop(name: "loop 0", coalescesEvents: services.configuration.coalescesEvents)
      try loop.run { reactor in
        let started = Server(services, routes: routes.withLock { $0 }, on: reactor)
        server = started
        do throws(StartError) { try started.start(signals: watched) } catch {
          failure = error
          return loop.stop()
        }
        // Safe: `execute` runs the closure on the main loop, to which the server belongs, while that loop runs.
        let bound = unsafe LoopBound(started)
        let drain: @Sendable () -> Void = { loop.execute { _ in bound.value.drain() } }
        let isShutdownRequested = control.withLock { control in
          control.drain = drain
          control.applyConfiguration = { loop.execute { _ in bound.value.applyConfiguration() } }
          return control.isShutdownRequested
        }
        if isShutdownRequested { drain() }
      }
    } catch { failure = StartError(message: "cannot start: \(error)") }
    control.withLock { $0 = Control() }
    withExtendedLifetime(server) {}
    if let failure { throw failure }
  }

  /// Reads the configuration again: the file that `SLUICE_ENV_FILE` names, and all files that settings name. Requests
  /// that have begun keep the earlier configuration. SIGHUP does the same if ``run(handlesSignals:)`` handles signals.
  ///
  /// `SLUICE_STATE`, `SLUICE_LISTEN`, `SLUICE_WEBSOCKET_LISTEN`, `SLUICE_LOOPS` and `SLUICE_COALESCE` keep their values,
  /// which is logged. Blocks while it reads files. Can be called on any thread.
  ///
  /// - Throws: ``ConfigurationError`` with every issue; the earlier configuration remains in effect.
  public func reload() throws(ConfigurationError) {
    try services.reload()
    control.withLock(\.applyConfiguration)?()
  }

  private func serveCGI(signals watched: [CInt]) throws(StartError) {
    let configuration = services.configuration
    let request = CGIExchange.readRequest(environment: environment, maximumBodyBytes: configuration.maximumBodyBytes)
    var signals: SignalWatch?
    defer { withExtendedLifetime(signals) {} }
    services.unsaved.restore()
    defer { services.unsaved.persist() }
    let routes = routes.withLock { $0 }
    do throws(SystemError) {
      let loop = try EventLoop(name: "loop 0")
      try loop.run { reactor in
        let exchange = CGIExchange(on: reactor) { [services] in
          guard services.commands.running > 0 else { return loop.stop() }
          // A program that generates the response must not outlive this one. The response does not wait for that.
          CGIExchange.closeOutput()
          reactor.spawn {
            while services.commands.running > 0, (try? await reactor.sleep(for: .milliseconds(20))) != nil {}
            loop.stop()
          }
        }
        // The web server terminates the program: the stream can still send its terminal record, but has only 3 seconds.
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

  /// Responds to one request on the calling loop, for in-memory tests.
  package func respond(_ request: Request, _ writer: consuming ResponseWriter, on reactor: Reactor) {
    var request = request
    request.setBody(exchange(&request.body, with: []), limit: services.configuration.maximumBodyBytes)
    RequestDispatcher(services, routes: routes.withLock { $0 }, on: reactor).respond(request, writer)
  }

  // For tests.
  package var runningStreams: Int { services.generations.count }
  package var isDraining: Bool { services.isDraining }
  package func retryUnsaved() async -> Int { await services.pool.run { [services] in services.unsaved.retry() } }

  /// The warnings for the administrator: settings that are valid but probably not meant.
  package var configurationWarnings: [ConfigurationError.Issue] {
    services.warnings
  }

  /// The summary for the administrator of what would run: lines without a full stop.
  package var configurationSummary: [String] {
    services.parts.summary.map { "\($0.name): \($0.value)" }
      + (services.configuration.resume > .zero ? ["SLUICE_RESUME has no effect in a CGI program"] : [])
  }

  /// The table of settings, as `sluice --help` prints it.
  package static var settingsHelp: String { Configuration.help }
}
