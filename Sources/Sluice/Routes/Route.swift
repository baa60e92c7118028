import FastCGI

/// What a program answers a request with that it does not stream.
public typealias AnswerHandler = nonisolated(nonsending) @Sendable (Call) async throws -> Response

/// What a program streams: it sends deltas and returns when the answer is complete.
///
/// It runs on an event loop: what blocks belongs elsewhere. When the client goes, its task is cancelled and the next
/// `send` throws.
public typealias StreamHandler = nonisolated(nonsending) @Sendable (Call, ResponseStream) async throws -> Void

/// One row of the table of endpoints.
struct Route: Sendable {
  enum Action: Sendable {
    case answer(AnswerHandler)
    case stream(StreamingEndpoint)
  }

  let methods: [String]
  let path: PathPattern
  /// Whether it answers without asking who asks.
  var isOpen = false
  let action: Action

  init(_ methods: String..., path: PathPattern, isOpen: Bool = false, action: Action) {
    self.methods = methods
    self.path = path
    self.isOpen = isOpen
    self.action = action
  }
}

/// An endpoint that streams, or answers with the same in one piece.
struct StreamingEndpoint: Sendable {
  /// What a request asks, once it is known to be valid.
  final class Question: Sendable {
    let message: String
    /// The session that it belongs to; nil where nothing is stored.
    let sessionID: String?
    /// Whether the client wants the answer in one piece.
    let wantsWhole: Bool

    init(message: String, sessionID: String? = nil, wantsWhole: Bool = false) {
      self.message = message
      self.sessionID = sessionID
      self.wantsWhole = wantsWhole
    }
  }

  typealias Ask = nonisolated(nonsending) @Sendable (Call) async throws -> Question
  typealias Run = nonisolated(nonsending) @Sendable (Call, Question, ResponseStream) async throws -> Finish

  let dialect: any Dialect.Type
  /// Reads and checks the request.
  let ask: Ask
  /// Answers it.
  let run: Run
  /// The answer in one piece.
  var whole: @Sendable (Finish, String) -> Response = { finish, text in .json(["message": .string(text)]) }
}

/// A path in which segments may be placeholders: `/api/streams/{id}`.
struct PathPattern: Sendable, ExpressibleByStringLiteral {
  let text: String
  private let segments: [Substring]

  init(_ text: String) {
    self.text = text
    segments = text.split(separator: "/", omittingEmptySubsequences: false)
  }

  init(stringLiteral text: String) { self.init(text) }

  /// The values of the placeholders, or nil when `path` is another one. A placeholder is never empty.
  func match(_ path: String) -> [String: String]? {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == segments.count else { return nil }
    var values: [String: String] = [:]
    for (segment, part) in zip(segments, parts) {
      if segment.first == "{" {
        guard !part.isEmpty else { return nil }
        values[String(segment.dropFirst().dropLast())] = String(part)
      } else if segment != part {
        return nil
      }
    }
    return values
  }
}

/// The table of endpoints.
struct RouteTable: Sendable {
  private(set) var routes: [Route] = []

  mutating func add(_ route: Route) { routes.append(route) }

  /// The row for a request, which also answers HEAD where it answers GET.
  func find(_ method: String, _ path: String) throws(Failure) -> (route: Route, parameters: [String: String]) {
    var methods: [String] = []
    for route in routes {
      guard let parameters = route.path.match(path) else { continue }
      if route.methods.contains(method == "HEAD" ? "GET" : method) { return (route, parameters) }
      methods += route.methods + (route.methods.contains("GET") ? ["HEAD"] : [])
    }
    guard methods.isEmpty else {
      var failure = Failure(
        .methodNotAllowed, "\(path) does not take \(method) but \(methods.joined(separator: ", ")).")
      failure.allowedMethods = methods
      throw failure
    }
    throw Failure(.notFound, "There is nothing at \(path.prefix(200)).")
  }
}
