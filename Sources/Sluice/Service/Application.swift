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
///     try application.run()
///
/// It is configured by environment variables, which the README lists. Started by systemd, by spawn-fcgi, with
/// `SLUICE_LISTEN`, or as a CGI program, it serves the same endpoints.
public final class Application {
  /// The version of this package.
  public static let version = "0.1.0"

  private let configuration: Configuration
  private let environment: [String: String]
  private var routes = RouteTable()
  private let services: Services

  /// Reads the configuration.
  ///
  /// - Parameter environment: the variables; those of this process unless given.
  /// - Throws: ``ConfigurationError`` with every mistake.
  public init(environment: [String: String] = ProcessInfo.processInfo.environment) throws(ConfigurationError) {
    self.environment = environment
    configuration = try Configuration(environment: environment)
    // Before any thread exists: the threads inherit it. libfcgi would install handlers otherwise.
    Signals.block([SIGTERM, SIGINT, SIGHUP, SIGPIPE, SIGUSR1])
    let descriptors = DescriptorPlan.forProcess(loops: configuration.loops)
    let log = Log(level: configuration.logLevel, environment: environment)
    services = Services(
      configuration, log: log, pool: BlockingPool(maximumThreads: descriptors.fileThreads), environment: environment,
      descriptors: descriptors)
    routes = .builtIn(services)
  }

  /// Adds an endpoint that streams, in the dialect `events`.
  ///
  /// - Parameters:
  ///   - method: an HTTP method, in upper case.
  ///   - path: where it is; a segment in braces is a placeholder: `/rooms/{room}`.
  ///   - handler: sends the answer; see ``StreamHandler``. What it throws becomes the stream's `error` record: a
  ///     ``Failure`` as it is, anything else as `internal`.
  public func stream(_ method: String, _ path: String, _ handler: @escaping StreamHandler) {
    routes.add(
      .stream(method, at: PathPattern(path), as: EventsDialect.self, retainsBody: true) { context in
        GenerationRequest(
          message: "", retainsText: false,
          produce: { stream in
            try await handler(context, stream)
            return GenerationResult()
          })
      })
  }

  /// Adds an endpoint that answers in one piece.
  public func answer(_ method: String, _ path: String, _ handler: @escaping RouteHandler) {
    routes.add(.handle(method, at: PathPattern(path), handler))
  }

  /// Serves until SIGTERM or SIGINT, then lets running streams finish and returns. As a CGI program it serves the one
  /// request. Blocks the calling thread, which becomes the main event loop's.
  ///
  /// - Throws: ``StartError`` when there is nothing to listen on, or not enough of something to start.
  public func run() throws(StartError) {
    ConnectionServer.initializeLibrary()
    defer { services.log.flush() }
    if CGIExchange.isStarted(in: environment) { return try serveCGI() }
    let sockets = try ListeningSocket.all(configuration)
    var server: Server?
    var failure: SystemError?
    do throws(SystemError) {
      let loop = try EventLoop(name: "loop 0")
      try loop.run { reactor in
        let started = Server(services, routes: routes, on: reactor)
        server = started
        do throws(SystemError) { try started.start(sockets) } catch {
          failure = error
          loop.stop()
        }
      }
    } catch { failure = error }
    withExtendedLifetime(server) {}
    if let failure { throw StartError(message: "cannot start: \(failure)") }
  }

  private func serveCGI() throws(StartError) {
    let read = CGIExchange.readRequest(environment: environment, maximumBodyBytes: configuration.maximumBodyBytes)
    var signals: SignalWatch?
    defer { withExtendedLifetime(signals) {} }
    services.unsaved.takeUp()
    defer { services.unsaved.writeOut() }
    guard let request = read else { throw StartError(message: "the request ended before its CONTENT_LENGTH") }
    do throws(SystemError) {
      let loop = try EventLoop(name: "loop 0")
      try loop.run { reactor in
        let exchange = CGIExchange(on: reactor) { loop.stop() }
        // The web server ends the program: the stream says so, if it can, and is not waited for long.
        signals = try? SignalWatch([SIGTERM, SIGINT, SIGHUP], on: reactor) { [services] _ in
          services.streams.endAll(.failed(Failure(.shuttingDown, "The server is shutting down.")))
          _ = reactor.schedule(after: .seconds(3)) { loop.stop() }
        }
        RequestDispatcher(services, routes: routes, on: reactor).respond(
          request,
          ResponseWriter(
            exchange, isHeadRequest: request.method == "HEAD", writeTimeout: configuration.writeTimeout))
      }
    } catch { throw StartError(message: "cannot start: \(error)") }
  }
}
