import EventLoop
import FastCGI
import JSON

/// An authenticated request, as every handler receives it. It can be used on any thread.
@safe
public final class RequestContext: Sendable {
  /// The request with its body. A request with a body over `SLUICE_MAX_BODY` is refused before the handler is called.
  public var request: Request {
    var request = Request(parameters: parameters, body: body.bytes)
    request.bodyIssue = body.issue
    return request
  }

  let parameters: Parameters
  let body: RequestBody
  /// The request method, in upper case.
  let method: String
  /// The user who sent the request; `anonymous` if the route is public or authentication is disabled.
  public let user: User
  /// The values of the parameters in the route's path, by name: `id` for `{id}`.
  public let pathParameters: [String: String]
  /// The web server's request id (nginx's `$request_id`), which correlates its log lines with those of Sluice; a
  /// generated id if there is none.
  public let correlationID: String
  /// The configuration for the request's location.
  var configuration: Configuration { sharedConfiguration.values }
  /// The parts of the services that were in effect when the request began.
  var parts: ConfiguredParts { sharedConfiguration.parts }
  private let sharedConfiguration: SharedConfiguration
  private let bound: LoopBound<Reactor>

  /// - Parameter request: the request without its body.
  init(
    request: Request, body: RequestBody, user: User, pathParameters: [String: String], correlationID: String,
    configuration: SharedConfiguration, on reactor: Reactor
  ) {
    // Safe: only the request's task, which runs on this loop, reads it.
    unsafe bound = LoopBound(reactor)
    self.parameters = request.parameters
    self.body = body
    self.method = request.method
    self.user = user
    self.pathParameters = pathParameters
    self.correlationID = correlationID
    self.sharedConfiguration = configuration
  }

  /// Returns the parsed JSON body, an object or an array. Parsing takes some milliseconds per megabyte.
  ///
  /// - Throws: ``Failure`` when the body is not JSON (400) or not declared as `application/json` (415).
  public func json() throws(Failure) -> JSON {
    guard head.declaresJSON else {
      throw Failure(.unsupportedMediaType, "The request body must be JSON, with Content-Type: application/json.")
    }
    do { return try JSON(parsing: body.bytes) } catch {
      throw Failure(
        .badRequest, "The request body is not valid JSON, or is nested more than \(JSON.maximumDepth) levels deep."
      )
    }
  }

  /// - Throws: ``Failure/Code/payloadTooLarge`` when the body exceeds the limit and was therefore not read.
  func checkBody() throws(Failure) {
    switch body.issue {
    case .tooLarge:
      throw Failure(.payloadTooLarge, "The request body exceeds the limit of \(configuration.maximumBodyBytes) bytes.")
    case .incomplete(let received, let announced):
      throw Failure(
        .badRequest, "The request body ended after \(received) of \(announced) bytes; send as many as Content-Length.")
    case nil: break
    }
  }

  /// The loop of the request's task. It must not be used outside that task.
  var reactor: Reactor { unsafe bound.value }

  /// The request without its body.
  var head: Request { Request(parameters: parameters) }
}
