import FastCGI
import JSON

/// A message of a client.
enum WebSocketMessage {
  /// Start a stream.
  ///
  /// - Parameters:
  ///   - body: the JSON object of a POST request.
  ///   - query: the query of a GET request.
  case start(body: JSON?, query: JSON.Members?, key: String?)
  case stop
  /// Continue a stream, of which the client already has a number of deltas.
  case resume(stream: String, after: Int)

  /// The refusal of a message, and the id in it.
  struct Refusal: Error {
    let id: String?
    let failure: Failure
  }

  typealias ParsingResult = Result<(id: String, message: WebSocketMessage), Refusal>

  /// Returns what ``parse(_:)`` returns or throws.
  static func result(_ text: [UInt8]) -> ParsingResult {
    Result { () throws(Refusal) in try parse(text) }
  }

  /// Parses a message.
  ///
  /// - Returns: the client's id of the stream, and what it wants.
  static func parse(_ text: [UInt8]) throws(Refusal) -> (id: String, message: WebSocketMessage) {
    guard let json = try? JSON(parsing: text), case .object(let members) = json else {
      throw Refusal(id: nil, failure: Failure(.badRequest, "A message must be a JSON object."))
    }
    guard let id = members["id"]?.string, Identifier.isValid(id) else {
      throw Refusal(
        id: nil, failure: Failure(.badRequest, "\"id\" must be a string that matches [A-Za-z0-9_-]{1,64}."))
    }
    do throws(Failure) { return (id, try message(members)) } catch { throw Refusal(id: id, failure: error) }
  }

  private static func message(_ members: JSON.Members) throws(Failure) -> WebSocketMessage {
    switch members["type"]?.string {
    case "start": return try start(members)
    case "stop": return .stop
    case "resume":
      guard let stream = members["stream"]?.string else {
        throw Failure(.badRequest, "\"stream\" must be the id of a stream.")
      }
      // Also because the id is logged.
      guard Identifier.isValid(stream) else { throw Failure.noSuchStream }
      guard let after = (members["after"] ?? .integer(0)).integer, after >= 0 else {
        throw Failure(.badRequest, "\"after\" must be the number of deltas received.")
      }
      return .resume(stream: stream, after: after)
    default: throw Failure(.badRequest, "\"type\" must be start, stop or resume.")
    }
  }

  private static func start(_ members: JSON.Members) throws(Failure) -> WebSocketMessage {
    var key: String?
    switch members["idempotencyKey"] {
    case nil, .null?: break
    case .string(let text)?: key = text
    default: throw Failure(.badRequest, "\"idempotencyKey\" must be a string.")
    }
    switch (members["body"], members["query"]) {
    case (.object(let body)?, nil):
      guard body["stream"] != .bool(false) else {
        throw Failure(.badRequest, "\"stream\" must not be false over WebSocket.")
      }
      return .start(body: .object(body), query: nil, key: key)
    case (nil, .object(let query)?): return .start(body: nil, query: query, key: key)
    case (nil, nil): return .start(body: nil, query: nil, key: key)
    default: throw Failure(.badRequest, "Either \"body\" or \"query\" must be a JSON object.")
    }
  }
}
