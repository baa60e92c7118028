import EventLoop
import FastCGI

/// A request whose sender is known: what every handler gets.
public final class Call: Sendable {
  private struct Body: Sendable {
    var bytes: [UInt8]
    let isTooLarge: Bool
  }

  /// The request, whole.
  public var request: Request {
    body.withLock { body in
      var request = Request(parameters: parameters, body: body.bytes)
      request.isBodyTooLarge = body.isTooLarge
      return request
    }
  }

  private let parameters: Parameters
  private let body: Locked<Body>
  /// Who asks. For routes that ask nobody, `anonymous`.
  public let user: User
  /// What the placeholders of the route's path stand for: `{id}`.
  public let pathParameters: [String: String]
  /// nginx's `$request_id`, by which log lines of the two belong together; one of our own where there is none.
  public let correlationID: String
  /// The settings for the location that the request came through.
  let configuration: Configuration

  init(
    request: Request, user: User, pathParameters: [String: String], correlationID: String, configuration: Configuration
  ) {
    self.parameters = request.parameters
    self.body = Locked(Body(bytes: request.body, isTooLarge: request.isBodyTooLarge))
    self.user = user
    self.pathParameters = pathParameters
    self.correlationID = correlationID
    self.configuration = configuration
  }

  /// Lets the body go, once it was read: a stream may live long, and a body be large.
  func dropBody() { body.withLock { $0.bytes = [] } }
}
