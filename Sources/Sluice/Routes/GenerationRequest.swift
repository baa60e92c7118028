import JSON

/// What a request asks, once it is known to be valid, and how it is answered.
final class GenerationRequest: Sendable {
  typealias Producer = nonisolated(nonsending) @Sendable (Generation, IdempotencyLock?) async throws -> GenerationResult

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

  /// What a dialect can know of the stream.
  func metadata(messageID: String) -> StreamMetadata {
    var metadata = StreamMetadata(messageID: messageID)
    metadata.message = message
    metadata.model = model ?? metadata.model
    metadata.wantsUsage = wantsUsage
    return metadata
  }
}
