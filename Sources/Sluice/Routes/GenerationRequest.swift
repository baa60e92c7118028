import JSON

/// A validated request for model output, and the functions that produce its response.
final class GenerationRequest: Sendable {
  typealias Producer = nonisolated(nonsending) @Sendable (Generation, IdempotencyLock?) async throws -> GenerationResult

  /// The user's message.
  let message: String
  /// The requested model, if known.
  let model: String?
  /// The session in which the turn will be stored; nil if it is not stored.
  let session: String?
  /// Whether the client requests a JSON response instead of a stream.
  let wantsJSON: Bool
  /// Whether the client requests token usage, in dialects that make it optional.
  let wantsUsage: Bool
  /// Whether the complete text is needed after it has been sent.
  let retainsText: Bool
  /// The function that sends the text and does all work that must precede the terminal record, such as storing the turn.
  let produce: Producer
  /// The function that creates the body of a JSON response.
  let jsonBody: DeliveryFormat.JSONBody

  init(
    message: String, model: String? = nil, session: String? = nil, wantsJSON: Bool = false, wantsUsage: Bool = false,
    retainsText: Bool = true,
    produce: @escaping Producer, jsonBody: @escaping DeliveryFormat.JSONBody = { _, text in ["message": .string(text)] }
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

  /// Returns the description of the stream that its dialect receives.
  func metadata(messageID: String) -> StreamMetadata {
    var metadata = StreamMetadata(messageID: messageID)
    metadata.message = message
    metadata.model = model ?? metadata.model
    metadata.wantsUsage = wantsUsage
    return metadata
  }
}
