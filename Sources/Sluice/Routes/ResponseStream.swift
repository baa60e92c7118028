import Upstream

/// The stream of one response, as its handler sees it: the handler sends text, and the client receives records.
///
/// It belongs to the handler's task, which the compiler enforces. Sluice sends the one terminal record: `done` when the
/// handler returns, an error when it throws, `cancelled` when the stream was stopped.
public struct ResponseStream {
  private let generation: Generation
  private let startModel: (Prompt) throws -> ModelOutput

  init(_ generation: Generation, startModel: @escaping (Prompt) throws -> ModelOutput) {
    self.generation = generation
    self.startModel = startModel
  }

  /// The id of the stream (a UUIDv7). The client receives it as `Sluice-Stream-Id` and can stop the stream with it.
  public var id: String { generation.id }

  /// Sends text, preceded by the head if that has not been sent. Returns when the web server has accepted the text, so
  /// a slow client delays it, unless `SLUICE_RESUME` is set. An empty string sends nothing.
  ///
  /// - Throws: ``StreamClosedError``, which the handler should propagate, when the stream has terminated. ``Failure``
  ///   when the response exceeds `SLUICE_MAX_ANSWER`.
  public func send(_ text: String) async throws { try await generation.send(text) }

  /// Sends reasoning, a refusal, a call of a tool or a source. Waits and throws like ``send(_:)-(String)``.
  public func send(_ part: OutputPart) async throws { try await generation.send(OutputChunk(part)) }

  /// Sends the head now instead of with the first text, so that the client knows that a response will follow. A
  /// ``Failure`` that the handler throws before the head is sent becomes an error response with its own HTTP status.
  ///
  /// - Throws: ``StreamClosedError`` when the stream has terminated.
  public func open() async throws { try await generation.open() }

  /// Sends the model's output for `prompt` as it arrives, and returns when it is complete. The handler can send or
  /// relay more afterwards.
  ///
  /// The output comes from the ``Generator`` that the application was given, or else from the one that the
  /// configuration of the request's location selects. The location's system prompt precedes the prompt's messages, its
  /// model is used unless the prompt names one, and its `SLUICE_MAX_TOKENS` caps the prompt's limit. A slow client
  /// pauses the generator. When the client disconnects, the connection to the model is closed.
  ///
  /// - Returns: the finish reason and the token usage. The terminal record reports those of the last relayed output.
  /// - Throws: ``StreamClosedError`` when the stream has terminated. ``GeneratorError`` when the model failed; if the
  ///   handler propagates it, it becomes the stream's error. ``Failure`` for other causes.
  @discardableResult
  public func relay(_ prompt: Prompt) async throws -> Completion {
    try generation.checkTermination()
    do {
      let completion = try await generation.relay(try startModel(prompt))
      generation.didRelay(completion)
      return completion
    } catch {
      // Termination of the stream takes precedence over the model's error, which can be a consequence of it.
      try generation.checkTermination()
      throw error
    }
  }
}
