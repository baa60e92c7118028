import FastCGI

/// What a program answers a request with that it does not stream.
public typealias RouteHandler = nonisolated(nonsending) @Sendable (RequestContext) async throws -> Response

/// What a program streams: it sends deltas and returns when the answer is complete.
///
/// It runs on an event loop: what blocks belongs elsewhere. When the client goes, its task is cancelled and the next
/// `send` throws.
public typealias StreamHandler = nonisolated(nonsending) @Sendable (RequestContext, ResponseStream) async throws -> Void

/// One row of the table of endpoints.
struct Route: Sendable {
  enum Action: Sendable {
    case handle(RouteHandler)
    case stream(StreamingEndpoint)
  }

  let methods: [String]
  let path: PathPattern
  /// Whether it answers without asking who asks.
  let isPublic: Bool
  /// Whether it is served while the server waits for its streams to end.
  let isServedWhileDraining: Bool
  let action: Action

  /// Whether it has a model generate.
  var callsModel: Bool {
    if case .stream = action { true } else { false }
  }

  private init(
    _ methods: [String], _ path: PathPattern, isPublic: Bool = false, isServedWhileDraining: Bool = false,
    _ action: Action
  ) {
    self.methods = methods
    self.path = path
    self.isPublic = isPublic
    self.isServedWhileDraining = isServedWhileDraining || isPublic
    self.action = action
  }

  /// A row that streams.
  static func stream(
    _ methods: String..., at path: PathPattern, as dialect: any Dialect.Type, feature: Feature? = nil,
    whenDisabled disabledBehavior: StreamingEndpoint.DisabledBehavior = .refusal(alternate: nil),
    supportsIdempotencyKey: Bool = true,
    retainsBody: Bool = false, _ validate: @escaping StreamingEndpoint.Validator
  ) -> Route {
    Route(
      methods, path,
      .stream(
        StreamingEndpoint(
          dialect: dialect, feature: feature, disabledBehavior: disabledBehavior,
          supportsIdempotencyKey: supportsIdempotencyKey,
          retainsBody: retainsBody, validate: validate)))
  }

  /// A row that asks a model and answers in one piece.
  static func json(_ methods: String..., at path: PathPattern, _ validate: @escaping StreamingEndpoint.Validator)
    -> Route
  {
    Route(methods, path, .stream(StreamingEndpoint(dialect: nil, validate: validate)))
  }

  /// A row that asks no model.
  static func handle(
    _ methods: String..., at path: PathPattern, isPublic: Bool = false, isServedWhileDraining: Bool = false,
    _ handler: @escaping RouteHandler
  ) -> Route {
    Route(methods, path, isPublic: isPublic, isServedWhileDraining: isServedWhileDraining, .handle(handler))
  }
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

  /// The number of segments.
  var count: Int { segments.count }

  /// The values of the placeholders, or nil when `path` is another one. A placeholder is never empty.
  func match(_ path: RequestPath) -> [String: String]? {
    guard path.segments.count == segments.count else { return nil }
    var values: [String: String] = [:]
    for (segment, part) in zip(segments, path.segments) {
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

/// The path of a request, split once for all the patterns that it is compared with.
struct RequestPath: Sendable {
  let text: String
  fileprivate let segments: [Substring]

  /// - Parameter maximumSegments: the most that a pattern has. The rest of a longer path is not looked at.
  init(_ text: String, maximumSegments: Int) {
    self.text = text
    segments = text.split(separator: "/", maxSplits: maximumSegments, omittingEmptySubsequences: false)
  }
}

/// The table of endpoints.
struct RouteTable: Sendable {
  private(set) var routes: [Route]

  /// The most segments that a row's path has.
  private var maximumSegments = 0

  init(_ routes: [Route] = []) {
    self.routes = []
    for route in routes { add(route) }
  }

  mutating func add(_ route: Route) {
    routes.append(route)
    maximumSegments = max(maximumSegments, route.path.count)
  }

  private func split(_ path: String) -> RequestPath { RequestPath(path, maximumSegments: maximumSegments) }

  /// The row for a request, which also answers HEAD where it answers GET.
  func find(_ method: String, _ path: String) throws(Failure) -> (route: Route, parameters: [String: String]) {
    let segments = split(path)
    for route in routes where route.methods.contains(method == "HEAD" ? "GET" : method) {
      if let parameters = route.path.match(segments) { return (route, parameters) }
    }
    let methods = try self.methods(at: segments)
    var failure = Failure(
      .methodNotAllowed,
      "\(path.prefix(200)) does not take \(method.prefix(20)) but \(methods.joined(separator: ", ")).")
    failure.allowedMethods = methods
    throw failure
  }

  /// The methods that a path has, HEAD and OPTIONS among them.
  ///
  /// - Throws: ``Failure/Code/notFound`` when no row has the path.
  func methods(at path: String) throws(Failure) -> [String] { try methods(at: split(path)) }

  private func methods(at path: RequestPath) throws(Failure) -> [String] {
    var methods: [String] = []
    for route in routes where route.path.match(path) != nil {
      methods += route.methods + (route.methods.contains("GET") ? ["HEAD"] : [])
    }
    guard !methods.isEmpty else { throw Failure(.notFound, "There is nothing at \(path.text.prefix(200)).") }
    return methods + ["OPTIONS"]
  }
}
