import FastCGI
import JSON

/// An endpoint that streams what a model says, or answers with the same in one piece.
struct StreamingEndpoint: Sendable {
  typealias Validator = nonisolated(nonsending) @Sendable (RequestContext) async throws -> GenerationRequest

  /// What is done when the feature is turned off.
  enum DisabledBehavior: Sendable {
    /// The same endpoint answers in one piece.
    case json
    /// It refuses, and names the path of its twin that answers in one piece, if it has one.
    case refusal(alternate: String?)
  }

  /// The wire format, unless `?dialect=` chooses another. Nil answers in one piece always.
  let dialect: DialectKind?
  /// What turns streaming off; nil where nothing does.
  var feature: Feature?
  var disabledBehavior = DisabledBehavior.refusal(alternate: nil)
  /// Whether it counts in the hour's messages of the user.
  var countsAsMessage = true
  /// Whether a POST may carry an `Idempotency-Key`: not where nothing may be stored.
  var supportsIdempotencyKey = false
  /// Whether the body is still wanted while the answer is streamed: what a program of its own does is not known here.
  var retainsBody = false
  /// Reads and checks the request.
  let validate: Validator
}
