import FastCGI

/// A request whose sender is known: what every handler gets.
public final class Call: Sendable {
  public let request: Request
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
    self.request = request
    self.user = user
    self.pathParameters = pathParameters
    self.correlationID = correlationID
    self.configuration = configuration
  }
}
