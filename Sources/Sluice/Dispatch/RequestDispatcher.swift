import EventLoop
import FastCGI
import JSON

/// Dispatches the requests of one loop: finds the route, authenticates the request, and runs the handler in its own
/// task.
final class RequestDispatcher {
  let services: Services
  let routes: RouteTable
  let reactor: Reactor
  private(set) var parts: ConfiguredParts
  private var locations: LocationConfigurations

  init(_ services: Services, routes: RouteTable, on reactor: Reactor) {
    self.services = services
    self.routes = routes
    self.reactor = reactor
    parts = services.parts
    locations = LocationConfigurations(parts) { services.warnOnce(ofParameter: $0) }
  }

  /// Uses the services' current configuration for requests that begin from now on.
  func reload() {
    let earlier = parts
    parts = services.parts
    locations = LocationConfigurations(parts) { [services] in services.warnOnce(ofParameter: $0) }
    earlier.retireGenerators(notIn: parts, on: reactor)
  }

  /// Starts the response. Only an error response can be written before the request is authenticated and found to be
  /// valid.
  func respond(_ request: Request, _ writer: consuming ResponseWriter) {
    let body = RequestBody(request)
    // The task lives as long as the response and must not retain the body.
    var head = Request(parameters: request.parameters, lacksDescriptor: request.lacksDescriptor)
    // Behind lighttpd and Apache, /api/chat can be the program /api with the path /chat; a program that is really there
    // (/cgi-bin/sluice) is part of no route.
    if let path = request.unsplitPath, routes.matches(path) { head.parameters["PATH_INFO"] = path }
    if request.parameters["REQUEST_URI"]?.hasPrefix("/v1/") == true {
      let id = Self.correlationID(head)
      // The same one as in the log, also if the web server has none. Setting it copies all parameters.
      if head.parameters["REQUEST_ID"] != id { head.parameters["REQUEST_ID"] = id }
      if let value = FieldValue(id) { writer.fields.append(("x-request-id", value)) }
    }
    if !parts.cors.origins.isEmpty {
      let trust = request.parameters["SLUICE_TRUST_REMOTE_USER"].flatMap { try? SettingValue.flag($0) }
      writer.fields += parts.cors.fields(
        for: request, isCredentialed: trust ?? parts.configuration.trustsRemoteUser)
    }
    start(head, body, .http(writer))
  }

  /// Starts the task that responds.
  ///
  /// - Parameter request: the request without its body.
  func start(_ request: Request, _ body: RequestBody, _ client: consuming StreamClient) {
    var client: StreamClient? = consume client
    reactor.spawn {
      if let run = await self.begin(request, body, &client), let client = client.take() { await run.run(client) }
    }
  }

  /// Responds to a request that is not streamed.
  ///
  /// - Returns: the run of a streamed request, which requires the client; otherwise nil.
  private func begin(
    _ request: Request, _ body: RequestBody, _ client: inout StreamClient?
  ) async -> StreamRun? {
    let decision: Decision
    let isWebSocket = client?.webSocket != nil
    do throws(Failure) { decision = try await decide(request, body, isWebSocket: isWebSocket) } catch {
      services.recordRefusal(
        error,
        fields: [
          "correlationId": .string(Self.correlationID(request)), "method": .string(request.method),
          // Without the query, which can contain a token.
          "path": .string(String(request.path.prefix(200))),
        ])
      await client.take()?.refuse(error, request)
      return nil
    }
    let context: RequestContext
    let route: Route
    switch decision {
    case .respond(let response):
      await client.take()?.respond(response)
      return nil
    case .call(let found, let row): (context, route) = (found, row)
    }
    if case .stream(let endpoint) = route.action {
      return StreamRun(
        context, route: route.path.text, endpoint, services, reactor, isWebSocket: isWebSocket)
    }
    switch client.take() {
    case .http(let writer)?:
      switch route.action {
      case .handle(let handler): await handle(context, handler, isLimited: !route.isPublic, writer)
      case .read(let select): await read(context, route: route.path.text, select, writer)
      case .stream: break
      }
    case .webSocket(let stream)?:
      stream.refuse(Failure(.notFound, "No streaming endpoint matches \(request.path.prefix(200))."))
    case nil: break
    }
    return nil
  }

  private enum Decision {
    case respond(Response)
    case call(RequestContext, Route)
  }

  /// Decides how the request is handled.
  ///
  /// - Throws: the reason why the request is refused before its handler runs.
  private func decide(
    _ request: Request, _ body: RequestBody, isWebSocket: Bool
  ) async throws(Failure) -> Decision {
    let path = request.path
    if request.method == "OPTIONS" { return .respond(options(of: request, try routes.methods(at: path))) }
    let (route, parameters) = try routes.find(request.method, path)
    if services.isDraining, !route.isServedWhileDraining { throw Failure.draining }
    return .call(try await call(request, body, route, parameters, isWebSocket: isWebSocket), route)
  }

  /// Authenticates a request.
  ///
  /// - Parameter isWebSocket: whether it arrived over a WebSocket. Browsers always name the page that opens one.
  func call(
    _ request: Request, _ body: RequestBody, _ route: Route, _ parameters: [String: String], isWebSocket: Bool
  ) async throws(Failure) -> RequestContext {
    let configuration: SharedConfiguration
    do { configuration = try locations.configuration(for: request.parameters) } catch {
      throw Failure(
        .internalError, "The web server's configuration for this location is invalid.", detail: "\(error)")
    }
    var user = User("anonymous")
    if !route.isPublic {
      user = try await configuration.parts.authenticator.authenticate(
        request, trustsRemoteUser: configuration.values.trustsRemoteUser,
        callsModel: route.callsModel && !isWebSocket)
    }
    guard let user else { throw Failure(.unauthorized, "The authenticated user has no name.") }
    if route.callsModel, request.lacksDescriptor {
      throw Failure.noDescriptor
    }
    return RequestContext(
      request: request, body: body, user: user, pathParameters: parameters,
      correlationID: Self.correlationID(request), configuration: configuration, on: reactor)
  }

  /// Returns nginx's `$request_id` if it has the form of an identifier, because it is logged verbatim; otherwise a new
  /// one.
  static func correlationID(_ request: Request) -> String {
    let given = request.parameters["REQUEST_ID"] ?? request.parameters["UNIQUE_ID"] ?? ""
    return Identifier.isValid(given) ? given : Identifier.make()
  }

  /// OPTIONS is not authenticated: a CORS preflight carries no token.
  private func options(of request: Request, _ methods: [String]) -> Response {
    var head = ResponseHead(status: 204)
    if let list = FieldValue(methods.joined(separator: ", ")) {
      head.set("Allow", list)
      for field in parts.cors.preflightFields(for: request, methods: list) { head.set(field.name, field.value) }
    }
    return Response(head)
  }

  private func handle(
    _ context: RequestContext, _ handler: @escaping RouteHandler, isLimited: Bool, _ writer: consuming ResponseWriter
  ) async {
    let response: Response
    var slot: StreamSlot?
    do {
      if isLimited { slot = try await services.requestLimiter.acquireSlot(for: context.user, context.configuration) }
      response = try await handler(context)
    } catch {
      let failure = Failure(cause: error)
      services.recordRefusal(
        failure, fields: ["correlationId": .string(context.correlationID), "user": .string(context.user.name)])
      response = failure.response(to: context.head)
    }
    await writer.respond(response)
    // Keep the slot until the web server has accepted the complete response: a slow reader's unsent bytes occupy
    // memory.
    withExtendedLifetime(slot) {}
  }
}

extension Failure {
  static let noDescriptor = Failure(
    .overloaded, "The server has no file descriptor left to connect to a model.", retryAfter: .seconds(5))
}
