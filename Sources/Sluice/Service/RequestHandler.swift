import EventLoop
import FastCGI
import JSON
import Upstream

/// Answers the requests of one loop: finds the route, asks who asks, and runs the handler in a task of its own.
final class RequestHandler {
  private let services: Services
  private let routes: RouteTable
  private let reactor: Reactor

  init(_ services: Services, routes: RouteTable, on reactor: Reactor) {
    self.services = services
    self.routes = routes
    self.reactor = reactor
  }

  /// Begins to answer. Nothing is written before the sender is known and the request is valid, but its refusal.
  func respond(_ request: Request, _ writer: consuming ResponseWriter) {
    let trust = request.parameters["SLUICE_TRUST_REMOTE_USER"].flatMap { try? SettingValue.flag($0) }
    writer.fields = services.cors.fields(
      for: request, isCredentialed: trust ?? services.configuration.trustsRemoteUser)
    do throws(Failure) {
      if request.method == "OPTIONS" { return tellMethods(of: request, try routes.methods(at: request.path), writer) }
      let (route, parameters) = try routes.find(request.method, request.path)
      let call = try call(request, route, parameters)
      switch route.action {
      case .answer(let handler): answer(call, handler, isLimited: !route.isOpen, writer)
      case .stream where request.lacksDescriptor:
        throw Failure(
          .overloaded, "The server has no descriptor left to connect to a model.", retryAfter: .seconds(5))
      case .stream(let endpoint): stream(call, route, endpoint, writer)
      }
    } catch {
      refuse(request, error, writer)
    }
  }

  private func call(
    _ request: Request, _ route: Route, _ parameters: [String: String]
  ) throws(Failure) -> Call {
    let configuration: Configuration
    do { configuration = try services.configuration.applying(request.parameters) } catch {
      throw Failure(
        .internalError, "The web server's configuration for this location has a mistake.", detail: "\(error)")
    }
    var user = User("anonymous")
    if !route.isOpen {
      user = try services.authenticator.authenticate(
        request, trustsRemoteUser: configuration.trustsRemoteUser)
    }
    guard let user else { throw Failure(.unauthorized, "The user has no name.") }
    return Call(
      request: request, user: user, pathParameters: parameters, correlationID: Self.correlationID(request),
      configuration: configuration)
  }

  /// nginx's `$request_id`, if it looks like one: it goes into the log as it is.
  private static func correlationID(_ request: Request) -> String {
    let given = request.parameters["REQUEST_ID"] ?? request.parameters["UNIQUE_ID"] ?? ""
    return Identifier.isValid(given) ? given : Identifier.make()
  }

  // MARK: Ways to answer

  private func refuse(_ request: Request, _ failure: Failure, _ writer: consuming ResponseWriter) {
    services.note(
      failure, ["correlationId": .string(Self.correlationID(request)), "method": .string(request.method)])
    send(failure.response(to: request), writer)
  }

  private func send(_ response: Response, _ writer: consuming ResponseWriter) {
    var writer: ResponseWriter? = consume writer
    reactor.spawn { await writer.take()?.respond(response) }
  }

  /// OPTIONS asks nobody who asks: a browser's preflight carries no token.
  private func tellMethods(of request: Request, _ methods: [String], _ writer: consuming ResponseWriter) {
    var head = ResponseHead(status: 204)
    if let list = FieldValue(methods.joined(separator: ", ")) {
      head.set("Allow", list)
      for field in services.cors.preflightFields(for: request, methods: list) { head.set(field.name, field.value) }
    }
    send(Response(head), writer)
  }

  private func answer(
    _ call: Call, _ handler: @escaping AnswerHandler, isLimited: Bool, _ writer: consuming ResponseWriter
  ) {
    var writer: ResponseWriter? = consume writer
    reactor.spawn { [services] in
      let response: Response
      var slot: StreamSlot?
      do {
        if isLimited { slot = try await services.answers.slot(for: call.user, call.configuration) }
        response = try await handler(call)
      } catch {
        let failure = Failure(cause: error)
        services.note(
          failure, ["correlationId": .string(call.correlationID), "user": .string(call.user.name)])
        response = failure.response(to: call.request)
      }
      await writer.take()?.respond(response)
      // Held until the web server has taken all of it: what a slow reader leaves lying is memory.
      withExtendedLifetime(slot) {}
    }
  }

  private func stream(
    _ call: Call, _ route: Route, _ endpoint: StreamingEndpoint, _ writer: consuming ResponseWriter
  ) {
    let run = StreamRun(call, route: route.path.text, endpoint, services, reactor)
    var writer: ResponseWriter? = consume writer
    run.task = reactor.spawn {
      if let writer = writer.take() { await run.run(writer) }
    }
  }
}
