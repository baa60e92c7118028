import EventLoop
import FastCGI

/// The body of a request, apart from the rest of it: an open stream does not keep it.
final class RequestBody: Sendable {
  private let content: Locked<[UInt8]>
  let isTooLarge: Bool

  init(_ request: Request) {
    content = Locked(request.body)
    isTooLarge = request.isBodyTooLarge
  }

  var bytes: [UInt8] { content.withLock { $0 } }

  func release() { content.withLock { $0 = [] } }
}

/// A request whose sender is known: what every handler gets.
public final class RequestContext: Sendable {
  /// The request, whole.
  public var request: Request {
    var request = Request(parameters: parameters, body: body.bytes)
    request.isBodyTooLarge = body.isTooLarge
    return request
  }

  let parameters: Parameters
  let body: RequestBody
  /// The request method, in upper case.
  let method: String
  /// Who asks. For routes that ask nobody, `anonymous`.
  public let user: User
  /// What the placeholders of the route's path stand for: `{id}`.
  public let pathParameters: [String: String]
  /// nginx's `$request_id`, by which log lines of the two belong together; one of our own where there is none.
  public let correlationID: String
  /// The settings for the location that the request came through.
  let configuration: Configuration

  /// - Parameter request: without its body.
  init(
    request: Request, body: RequestBody, user: User, pathParameters: [String: String], correlationID: String,
    configuration: Configuration
  ) {
    self.parameters = request.parameters
    self.body = body
    self.method = request.method
    self.user = user
    self.pathParameters = pathParameters
    self.correlationID = correlationID
    self.configuration = configuration
  }

  /// The request without its body.
  var head: Request { Request(parameters: parameters) }
}
