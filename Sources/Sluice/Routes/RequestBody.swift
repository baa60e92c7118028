import EventLoop
import FastCGI

/// The JSON object in a request's body, asked for member by member. Each answer says what would be right.
struct RequestBody: Sendable {
  private let members: JSON.Members

  /// Reads a request's body, one of over a KiB on a thread of the pool: many small values take long.
  ///
  /// - Throws: ``Failure`` when the body is too large, is not declared as JSON, or is no JSON object.
  static func read(_ call: Call, on pool: BlockingPool) async throws(Failure) -> RequestBody {
    let limit = call.configuration.maximumBodyBytes
    guard call.request.body.count > 1024 else { return try RequestBody(call.request, limit: limit) }
    return try await pool.run { () throws(Failure) in try RequestBody(call.request, limit: limit) }
  }

  private init(_ request: Request, limit: Int) throws(Failure) {
    guard !request.isBodyTooLarge else {
      throw Failure(.payloadTooLarge, "The body is longer than \(limit) bytes.")
    }
    let type = (request.header("Content-Type") ?? "").prefix { $0 != ";" }.trimmed.lowercased()
    guard type == "application/json" else {
      throw Failure(.unsupportedMediaType, "The body must be JSON, sent with Content-Type: application/json.")
    }
    guard case .object(let members) = try JSON(parsing: request.body) else {
      throw Failure(.badRequest, "The body must be a JSON object.")
    }
    self.members = members
  }

  /// A text that must be there and not be empty.
  func text(_ name: String, limit: Int) throws(Failure) -> String {
    guard case .string(let text)? = members[name], !text.isEmpty else {
      throw Failure(.badRequest, "\"\(name)\" must be a text that is not empty.")
    }
    guard text.utf8.count <= limit else {
      throw Failure(.payloadTooLarge, "\"\(name)\" is longer than \(limit) bytes.")
    }
    return text
  }

  /// An id that may be missing; an integer is taken as its digits.
  func identifier(_ name: String) throws(Failure) -> String? {
    let text: String
    switch members[name] {
    case nil, .null?: return nil
    case .string(let value)?: text = value
    case .integer(let value)?: text = String(value)
    default: throw Failure(.badRequest, "\"\(name)\" must be a text.")
    }
    guard Identifier.isValid(text) else {
      throw Failure(.badRequest, "\"\(name)\" must be 1 to 64 of the characters A-Z, a-z, 0-9, _ and -.")
    }
    return text
  }

  /// A boolean that may be missing.
  func flag(_ name: String, default value: Bool) throws(Failure) -> Bool {
    switch members[name] {
    case nil, .null?: return value
    case .bool(let value)?: return value
    default: throw Failure(.badRequest, "\"\(name)\" must be true or false.")
    }
  }
}
