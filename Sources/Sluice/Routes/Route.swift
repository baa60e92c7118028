import FastCGI

/// A handler that returns a complete response. It runs on an event loop and must not block.
public typealias RouteHandler = nonisolated(nonsending) @Sendable (RequestContext) async throws -> Response

/// A handler that streams a response: it sends text and returns when the response is complete.
///
/// It runs in a task on an event loop and must not block. When the client disconnects (with `SLUICE_RESUME`, when none has
/// come back in that time), or the stream terminates for another reason, the task is cancelled and the next `send` throws.
public typealias StreamHandler = nonisolated(nonsending) @Sendable (RequestContext, ResponseStream) async throws -> Void

/// A function that returns the transcript that a request selects; nil if there is none to read now.
typealias StreamSelector = nonisolated(nonsending) @Sendable (RequestContext) async throws -> Transcript?

/// A row of the endpoint table.
struct Route: Sendable {
  enum Action: Sendable {
    case handle(RouteHandler)
    case stream(StreamingEndpoint)
    case read(StreamSelector)
  }

  let methods: [String]
  let path: PathPattern
  /// Whether no authentication is needed.
  let isPublic: Bool
  /// Whether the server still serves the route while it is draining.
  let isServedWhileDraining: Bool
  let action: Action

  /// Whether a request calls a model.
  let callsModel: Bool

  init(
    _ methods: [String], _ path: PathPattern, isPublic: Bool = false, isServedWhileDraining: Bool = false,
    callsModel: Bool = false, _ action: Action
  ) {
    if case .stream = action { self.callsModel = true } else { self.callsModel = callsModel }
    self.methods = methods
    self.path = path
    self.isPublic = isPublic
    self.isServedWhileDraining = isServedWhileDraining || isPublic
    self.action = action
  }

  /// Returns a row for a streaming endpoint.
  static func stream(
    _ methods: String..., at path: PathPattern, as dialect: DialectKind, feature: Feature? = nil,
    whenDisabled disabledBehavior: StreamingEndpoint.DisabledBehavior = .refusal(alternate: nil),
    supportsIdempotencyKey: Bool = true,
    checkPath: (@Sendable (_ parameters: [String: String]) throws(Failure) -> Void)? = nil,
    _ validate: @escaping StreamingEndpoint.Validator
  ) -> Route {
    Route(
      methods, path,
      .stream(
        StreamingEndpoint(
          dialect: dialect, feature: feature, disabledBehavior: disabledBehavior,
          supportsIdempotencyKey: supportsIdempotencyKey, checkPath: checkPath, validate: validate)))
  }

  /// Returns a row for an endpoint that calls a model and responds with JSON.
  static func json(_ methods: String..., at path: PathPattern, _ validate: @escaping StreamingEndpoint.Validator)
    -> Route
  {
    Route(methods, path, .stream(StreamingEndpoint(dialect: nil, supportsIdempotencyKey: true, validate: validate)))
  }

  /// Returns a row for an endpoint that sends a stream again. Also served while the server is draining, because the
  /// stream then still runs.
  static func read(_ path: PathPattern, _ select: @escaping StreamSelector) -> Route {
    Route(["GET"], path, isServedWhileDraining: true, .read(select))
  }

  /// Returns a row for an endpoint that calls no model.
  static func handle(
    _ methods: String..., at path: PathPattern, isPublic: Bool = false, isServedWhileDraining: Bool = false,
    _ handler: @escaping RouteHandler
  ) -> Route {
    Route(methods, path, isPublic: isPublic, isServedWhileDraining: isServedWhileDraining, .handle(handler))
  }
}
