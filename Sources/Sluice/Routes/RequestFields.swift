import EventLoop
import FastCGI
import JSON

/// What a request says, asked for field by field: the JSON object in its body or, for GET, its query. Each answer says
/// what would be right.
struct RequestFields: Sendable {
  private enum Source: Sendable {
    case body(JSON.Members)
    case query(Request)
  }

  private let source: Source

  /// Parses a request's fields and makes of them what its endpoint needs. A large body is parsed, and let go again, on
  /// a thread of `pool`.
  ///
  /// - Parameter make: takes what it needs of the fields. It may run on another thread.
  /// - Throws: ``Failure`` when the body is too large, is not declared as JSON, or is no JSON object; what `make` throws.
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

  /// A field's value; nil when it is missing or null.
  subscript(name: String) -> JSON? {
    switch source {
    case .query(let request): return request.query(name).map(JSON.string)
    case .body(let members):
      let value = members[name]
      return value == .null ? nil : value
    }
  }

  /// All fields of a body, in their order.
  var members: JSON.Members {
    guard case .body(let members) = source else { return [:] }
    return members
  }

  /// A text that must be there and not be empty.
  func string(_ name: String, limit: Int) throws(Failure) -> String {
    guard let text = try optionalString(name, limit: limit), !text.isEmpty else {
      throw Failure(.badRequest, "\"\(name)\" must be a non-empty string.")
    }
    return text
  }

  /// A text that may be missing.
  func optionalString(_ name: String, limit: Int) throws(Failure) -> String? {
    guard let value = self[name] else { return nil }
    guard case .string(let text) = value else { throw Failure(.badRequest, "\"\(name)\" must be a string.") }
    guard text.utf8.count <= limit else {
      throw Failure(.payloadTooLarge, "\"\(name)\" exceeds the limit of \(limit) bytes.")
    }
    return text
  }

  /// A title that may be missing.
  func title() throws(Failure) -> String? {
    let title = try optionalString("title", limit: .max)
    guard title.map({ $0.unicodeScalars.count <= 200 }) ?? true else {
      throw Failure(.badRequest, "\"title\" exceeds the limit of 200 characters.")
    }
    return title
  }

  /// An id that may be missing; an integer is taken as its digits.
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

  /// A boolean that may be missing.
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
