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
  let dialect: (any Dialect.Type)?
  /// What turns streaming off; nil where nothing does.
  var feature: Feature?
  var disabledBehavior = DisabledBehavior.refusal(alternate: nil)
  /// Whether a POST may carry an `Idempotency-Key`: not where nothing may be stored.
  var supportsIdempotencyKey = true
  /// Whether the body is still wanted while the answer is streamed: what a program of its own does is not known here.
  var retainsBody = false
  /// Reads and checks the request.
  let validate: Validator
}

/// What a request asks, once it is known to be valid, and how it is answered.
final class GenerationRequest: Sendable {
  typealias Producer = nonisolated(nonsending) @Sendable (ResponseStream) async throws -> GenerationResult
  typealias JSONBody = @Sendable (GenerationResult, String) -> JSON

  /// What the user says.
  let message: String
  /// The model, as far as it is known.
  let model: String?
  /// The session that the turn will be stored in, where it is to be stored.
  let session: String?
  /// Whether the client wants the answer in one piece.
  let wantsJSON: Bool
  /// Whether the client wants to be told what the answer cost, where the dialect leaves that to it.
  let wantsUsage: Bool
  /// Whether all of the text is needed when it is complete.
  let retainsText: Bool
  /// Streams the answer, and does with the complete one what is to be done before the client hears of its end.
  let produce: Producer
  /// The answer in one piece.
  let jsonBody: JSONBody

  init(
    message: String, model: String? = nil, session: String? = nil, wantsJSON: Bool = false, wantsUsage: Bool = false,
    retainsText: Bool = true,
    produce: @escaping Producer, jsonBody: @escaping JSONBody = { _, text in ["message": .string(text)] }
  ) {
    self.message = message
    self.model = model
    self.session = session
    self.wantsJSON = wantsJSON
    self.wantsUsage = wantsUsage
    self.retainsText = retainsText
    self.produce = produce
    self.jsonBody = jsonBody
  }
}
