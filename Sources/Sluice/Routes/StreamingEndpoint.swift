import FastCGI
import JSON

/// An endpoint that streams model output, or returns the same output as JSON.
struct StreamingEndpoint: Sendable {
  typealias Validator = nonisolated(nonsending) @Sendable (RequestContext) async throws -> GenerationRequest

  /// The behavior of an endpoint whose feature is disabled.
  enum DisabledBehavior: Sendable {
    /// Respond with JSON.
    case json
    /// Refuse the request, and name the path of the non-streaming alternate if there is one.
    case refusal(alternate: String?)
  }

  /// The wire format, unless `?dialect=` selects another; nil if the endpoint always responds with JSON.
  let dialect: DialectKind?
  /// The flag that disables streaming; nil if it cannot be disabled.
  var feature: Feature?
  var disabledBehavior = DisabledBehavior.refusal(alternate: nil)
  /// Whether a request counts toward the user's hourly message limit.
  var countsAsMessage = true
  /// Whether a POST can carry an `Idempotency-Key`; false for endpoints whose responses must not be stored.
  var supportsIdempotencyKey = false
  /// Whether the body is retained while the response is streamed, because an embedder's handler can read it later.
  var retainsBody = false
  /// Checks the parameters of the path. A WebSocket checks them in its handshake, before there is a request.
  var checkPath: (@Sendable (_ parameters: [String: String]) throws(Failure) -> Void)?
  /// Parses and validates the request.
  let validate: Validator
}
