import EventLoop
import FastCGI
import JSON

/// The fields of a request, from the JSON object in its body or, for GET and HEAD, from its query. Accessors throw a
/// ``Failure`` that names the expected value.
struct RequestFields: Sendable {
  private enum Source: Sendable {
    case body(JSON.Members)
    case query(Request)
  }

  private let source: Source

  /// Parses the fields of a request and returns the value that `make` creates from them. A large body is parsed, and
  /// the parsed JSON freed, on a thread of `pool`.
  ///
  /// - Parameter make: extracts the values that the endpoint needs. It can run on another thread.
  /// - Throws: ``Failure`` when the body is too large, not declared as JSON or not a JSON object; errors of `make`.
  static func parse<Value: Sendable>(
    _ context: RequestContext, on pool: BlockingPool,
    _ make: @escaping @Sendable (RequestFields) throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    if context.method == "GET" || context.method == "HEAD" {
      return try make(RequestFields(source: .query(context.head)))
    }
    try context.checkBody()
    guard context.body.bytes.count > maximumBytesOnLoop else {
      return try make(RequestFields(source: .body(try members(of: context))))
    }
    return try await pool.run { () throws(Failure) in
      try make(RequestFields(source: .body(try members(of: context))))
    }
  }

  private static let maximumBytesOnLoop = 4 * 1024

  private static func members(of context: RequestContext) throws(Failure) -> JSON.Members {
    guard case .object(let members) = try context.json() else {
      throw Failure(.badRequest, "The request body must be a JSON object.")
    }
    return members
  }

  /// The value of a field; nil if it is missing or null.
  subscript(name: String) -> JSON? {
    switch source {
    case .query(let request): return request.query(name).map(JSON.string)
    case .body(let members):
      let value = members[name]
      return value == .null ? nil : value
    }
  }

  /// All fields of the body, in their order; empty for a query.
  var members: JSON.Members {
    guard case .body(let members) = source else { return [:] }
    return members
  }

  /// Returns a required, non-empty string of at most `limit` bytes.
  func string(_ name: String, limit: Int) throws(Failure) -> String {
    guard let text = try optionalString(name, limit: limit), !text.isEmpty else {
      throw Failure(.badRequest, "\"\(name)\" must be a non-empty string.")
    }
    return text
  }

  /// Returns an optional string of at most `limit` bytes.
  func optionalString(_ name: String, limit: Int) throws(Failure) -> String? {
    guard let value = self[name] else { return nil }
    guard case .string(let text) = value else { throw Failure(.badRequest, "\"\(name)\" must be a string.") }
    guard text.utf8.count <= limit else {
      throw Failure(.payloadTooLarge, "\"\(name)\" exceeds the limit of \(limit) bytes.")
    }
    return text
  }

  /// Returns the optional `title`, of at most 200 characters.
  func title() throws(Failure) -> String? {
    let title = try optionalString("title", limit: .max)
    guard title.map({ $0.unicodeScalars.count <= 200 }) ?? true else {
      throw Failure(.badRequest, "\"title\" exceeds the limit of 200 characters.")
    }
    return title
  }

  /// Returns an optional id. An integer is converted to its decimal digits.
  func identifier(_ name: String) throws(Failure) -> String? {
    let text: String
    switch self[name] {
    case nil: return nil
    case .string(let value)?: text = value
    case .integer(let value)?: text = String(value)
    case .literal(let digits)? where digits.allSatisfy(\.isNumber): text = digits
    default: throw Failure(.badRequest, "\"\(name)\" must be a string or an integer.")
    }
    guard Identifier.isValid(text) else {
      throw Failure(.badRequest, "\"\(name)\" must match [A-Za-z0-9_-]{1,64}.")
    }
    return text
  }

  /// Returns an optional boolean; `value` if the field is missing.
  func bool(_ name: String, default value: Bool) throws(Failure) -> Bool {
    switch self[name] {
    case nil: return value
    case .bool(let value)?: return value
    default: throw Failure(.badRequest, "\"\(name)\" must be true or false.")
    }
  }
}

extension Request {
  /// Whether the body is declared as JSON.
  var declaresJSON: Bool {
    (header("Content-Type") ?? "").prefix { $0 != ";" }.trimmed.lowercased() == "application/json"
  }
}
