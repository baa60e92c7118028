import EventLoop
import FastCGI
import JSON

/// A request whose sender is known: what every handler is given. Use it on any thread.
@safe
public final class RequestContext: Sendable {
  /// The request with its body. One with a longer body than `SLUICE_MAX_BODY` is refused before a handler sees it.
  public var request: Request {
    var request = Request(parameters: parameters, body: body.bytes)
    request.isBodyTooLarge = body.isTooLarge
    return request
  }

  let parameters: Parameters
  let body: RequestBody
  /// The request method, in upper case.
  let method: String
  /// The user who sent it; `anonymous` where the route is public or authentication is disabled.
  public let user: User
  /// The values of the parameters in the route's path, by their names: `{id}`.
  public let pathParameters: [String: String]
  /// nginx's `$request_id`, by which log lines of the two belong together; one of our own where there is none.
  public let correlationID: String
  /// The settings for the location that the request came through.
  let configuration: Configuration
  private let bound: LoopBound<Reactor>

  /// - Parameter request: without its body.
  init(
    request: Request, body: RequestBody, user: User, pathParameters: [String: String], correlationID: String,
    configuration: Configuration, on reactor: Reactor
  ) {
    // Safe: only what runs in the request's task, on this loop, asks for it.
    unsafe bound = LoopBound(reactor)
    self.parameters = request.parameters
    self.body = body
    self.method = request.method
    self.user = user
    self.pathParameters = pathParameters
    self.correlationID = correlationID
    self.configuration = configuration
  }

  /// Returns the JSON of the body, an object or an array. Takes some milliseconds for a megabyte.
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

  /// - Throws: ``Failure/Code/payloadTooLarge`` when the body was not read.
  func checkBody() throws(Failure) {
    guard !body.isTooLarge else {
      throw Failure(.payloadTooLarge, "The request body exceeds the limit of \(configuration.maximumBodyBytes) bytes.")
    }
  }

  /// The loop of the request's task. Not to be used elsewhere.
  var reactor: Reactor { unsafe bound.value }

  /// The request without its body.
  var head: Request { Request(parameters: parameters) }
}
