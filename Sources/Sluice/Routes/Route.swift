import FastCGI

/// Responds to a request at once. It runs on an event loop and must not block.
public typealias RouteHandler = nonisolated(nonsending) @Sendable (RequestContext) async throws -> Response

/// Streams a response: sends text and returns when the response is complete.
///
/// It runs in a task on an event loop and must not block. When the client disconnects, or the stream terminates for
/// another reason, the task is cancelled and the next `send` throws.
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

  init(
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
    _ methods: String..., at path: PathPattern, as dialect: DialectKind, feature: Feature? = nil,
    whenDisabled disabledBehavior: StreamingEndpoint.DisabledBehavior = .refusal(alternate: nil),
    supportsIdempotencyKey: Bool = true,
    _ validate: @escaping StreamingEndpoint.Validator
  ) -> Route {
    Route(
      methods, path,
      .stream(
        StreamingEndpoint(
          dialect: dialect, feature: feature, disabledBehavior: disabledBehavior,
          supportsIdempotencyKey: supportsIdempotencyKey, validate: validate)))
  }

  /// A row that asks a model and answers in one piece.
  static func json(_ methods: String..., at path: PathPattern, _ validate: @escaping StreamingEndpoint.Validator)
    -> Route
  {
    Route(methods, path, .stream(StreamingEndpoint(dialect: nil, supportsIdempotencyKey: true, validate: validate)))
  }

  /// A row that asks no model.
  static func handle(
    _ methods: String..., at path: PathPattern, isPublic: Bool = false, isServedWhileDraining: Bool = false,
    _ handler: @escaping RouteHandler
  ) -> Route {
    Route(methods, path, isPublic: isPublic, isServedWhileDraining: isServedWhileDraining, .handle(handler))
  }
}
