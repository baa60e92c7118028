import Upstream

/// The stream of one response, as its handler sees it: text in, records out to the client.
///
/// Belongs to the handler's task: the compiler keeps it there. Whatever the handler does, its stream has one terminal
/// record: `done` when the handler returns, an error when it throws.
public struct ResponseStream {
  private let generation: Generation
  private let startModel: (Prompt) throws -> ModelOutput

  init(_ generation: Generation, startModel: @escaping (Prompt) throws -> ModelOutput) {
    self.generation = generation
    self.startModel = startModel
  }

  /// The stream's id (a UUIDv7), which the client gets as `Sluice-Stream-Id`, and with which it can stop the stream.
  public var id: String { generation.id }

  /// Sends text, and the head before the first. Returns when the web server has taken it, which may be as slow as the
  /// client. Nothing is sent for an empty text.
  ///
  /// - Throws: ``StreamClosedError`` when the stream has terminated: let it through. ``Failure`` when the response exceeds
  ///   `SLUICE_MAX_ANSWER`.
  public func send(_ text: String) async throws { try await generation.send(text) }

  /// Sends the head now instead of with the first text, so that the client knows that a response will follow. Until
  /// then a ``Failure`` that the handler throws has its own HTTP status.
  ///
  /// - Throws: ``StreamClosedError`` when the stream has terminated.
  public func open() async throws { try await generation.open() }

  /// Sends the model's response to `prompt` as it comes, and returns when it is complete. More can follow.
  ///
  /// It is the ``Generator`` that the application was given, or the one that the configuration of the request's location
  /// selects. The location's system prompt goes before the prompt's messages, its model is requested unless the prompt names
  /// one, and its `SLUICE_MAX_TOKENS` bounds the prompt's. A slow client pauses it; when the client disconnects, its connection is closed.
  ///
  /// - Returns: why the model stopped, and its usage of tokens: what the terminal record reports, of the last one relayed.
  /// - Throws: ``StreamClosedError`` when the stream has terminated, ``GeneratorError`` when the model failed, which
  ///   becomes the stream's error when the handler throws it on, ``Failure``.
  @discardableResult
  public func relay(_ prompt: Prompt) async throws -> Completion {
    try generation.checkTermination()
    do {
      let completion = try await generation.relay(try startModel(prompt))
      generation.didRelay(completion)
      return completion
    } catch {
      // Whatever the model's end of it is called: the stream is what was closed.
      try generation.checkTermination()
      throw error
    }
  }
}
