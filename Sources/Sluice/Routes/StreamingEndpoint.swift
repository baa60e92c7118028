import FastCGI
import JSON

/// An endpoint that streams what a model says, or answers with the same in one piece.
struct StreamingEndpoint: Sendable {
  typealias Ask = nonisolated(nonsending) @Sendable (Call) async throws -> Question

  /// What is done when the feature is turned off.
  enum Alternative: Sendable {
    /// The same endpoint answers in one piece.
    case whole
    /// It refuses, and names the path of its twin that answers in one piece, if it has one.
    case refusal(twin: String?)
  }

  /// The wire format, unless `?dialect=` chooses another. Nil answers in one piece always.
  let dialect: (any Dialect.Type)?
  /// What turns streaming off; nil where nothing does.
  var feature: Feature?
  var alternative = Alternative.refusal(twin: nil)
  /// Whether a POST may carry an `Idempotency-Key`: not where nothing may be stored.
  var keepsAnswers = true
  /// Whether the body is still wanted while the answer is streamed: what a program of its own does is not known here.
  var keepsBody = false
  /// Reads and checks the request.
  let ask: Ask
}

/// What a request asks, once it is known to be valid, and how it is answered.
final class Question: Sendable {
  typealias Answering = nonisolated(nonsending) @Sendable (ResponseStream) async throws -> Finish
  typealias Whole = @Sendable (Finish, String) -> JSON

  /// What the user says.
  let message: String
  /// The model, as far as it is known.
  let model: String?
  /// The session that the turn will be stored in, where it is to be stored.
  let session: String?
  /// Whether the client wants the answer in one piece.
  let wantsWhole: Bool
  /// Whether the client wants to be told what the answer cost, where the dialect leaves that to it.
  let wantsUsage: Bool
  /// Whether all of the text is needed when it is complete.
  let keepsText: Bool
  /// Streams the answer, and does with the complete one what is to be done before the client hears of its end.
  let answer: Answering
  /// The answer in one piece.
  let whole: Whole

  init(
    message: String, model: String? = nil, session: String? = nil, wantsWhole: Bool = false, wantsUsage: Bool = false,
    keepsText: Bool = true,
    answer: @escaping Answering, whole: @escaping Whole = { _, text in ["message": .string(text)] }
  ) {
    self.message = message
    self.model = model
    self.session = session
    self.wantsWhole = wantsWhole
    self.wantsUsage = wantsUsage
    self.keepsText = keepsText
    self.answer = answer
    self.whole = whole
  }
}
