import EventStream
import JSON

/// A reader for the body of a streamed chat completion: converts bytes to deltas and detects completion. A value that
/// performs no I/O.
///
/// It accepts the output of OpenAI, vLLM, llama.cpp, Ollama and OpenRouter: comments, events without choices, a
/// `finish_reason` without `[DONE]`, `[DONE]` without a `finish_reason`, and a mid-stream error with or without
/// `[DONE]` after it.
struct CompletionReader {
  private var parser: EventStreamParser
  private var state = State()
  private let chunks: ChunkParser

  /// - Parameter maximumTextBytes: the maximum length of the response. One event can contain all of it, with each byte
  ///   escaped as six bytes.
  init(chunks: ChunkParser, maximumTextBytes: Int = 4 << 20) {
    self.chunks = chunks
    maximumEventBytes = 6 * min(maximumTextBytes, 1 << 32) + 64 * 1024
    parser = EventStreamParser(maximumEventBytes: maximumEventBytes)
  }

  /// The maximum size of an event, and of a response that is one object.
  let maximumEventBytes: Int

  /// Whether `[DONE]` has been received, so that nothing more follows.
  var isComplete: Bool { state.hasDoneMarker }

  /// Whether the text is complete, although `[DONE]` can still follow.
  var hasFinishReason: Bool { state.finishReason != nil }

  /// Processes a chunk of the body.
  ///
  /// - Parameters:
  ///   - emit: called with each delta of the text in UTF-8, which is never empty and is valid only during the call.
  ///   - onActivity: called when the model is active without producing text.
  /// - Throws: an error that the upstream reports in mid-stream, or a protocol violation. Earlier text has already been
  ///   passed to `emit`.
  mutating func feed(
    _ bytes: borrowing Span<UInt8>, emit: (borrowing Span<UInt8>) -> Void, onActivity: () -> Void = {}
  ) throws(GeneratorError) {
    try Self.feed(bytes, to: &parser, &state, chunks, emit, onActivity)
  }

  /// Static, so that the parser and its closures can modify separate parts of the reader.
  private static func feed(
    _ bytes: borrowing Span<UInt8>, to parser: inout EventStreamParser, _ state: inout State, _ chunks: ChunkParser,
    _ emit: (borrowing Span<UInt8>) -> Void, _ onActivity: () -> Void
  ) throws(GeneratorError) {
    do {
      // Upstreams report failures with an event of type `error`, with or without data; with a field named `error`,
      // which llama.cpp uses in addition to the standard fields; or with bare JSON in place of a field.
      func failOnError(_ name: borrowing Span<UInt8>, _ value: borrowing Span<UInt8>) {
        let isError = name.equals("error") || (name.equals("event") && value.equals("error"))
        if isError || name[0] == UInt8(ascii: "{"), !state.hasDoneMarker { state.fail() }
      }
      try parser.feed(bytes, onOtherField: failOnError) { _, data, _ in
        guard !state.hasDoneMarker, state.failure == nil else { return }
        if data.equals("[DONE]") {
          state.hasDoneMarker = true
          return
        }
        var hasText = false
        let chunk = chunks.read(data) { text in
          hasText = true
          emit(text)
        }
        if let chunk {
          state.process(chunk, hasText: hasText)
          if chunk.errorKind != nil { state.readRetriable(of: data) }
          if chunk.isActive { onActivity() }
        } else {
          state.failure = GeneratorError(.failed, "The model server sent an event that is not a JSON object.")
        }
      }
    } catch {
      throw Self.tooLong(error.limit)
    }
    if let failure = state.failure { throw failure }
  }

  static func tooLong(_ limit: Int) -> GeneratorError {
    GeneratorError(
      .failed, "The model server sent an event that exceeds the size limit.", detail: "over \(limit) bytes")
  }

  /// Processes a response that is one `chat.completion` object instead of a stream. ``completion()`` follows.
  ///
  /// - Returns: false if it is none.
  /// - Throws: the error that it reports.
  mutating func read(
    whole json: borrowing Span<UInt8>, emit: (borrowing Span<UInt8>) -> Void
  ) throws(GeneratorError) -> Bool {
    var hasText = false
    let chunk = chunks.read(json) { text in
      hasText = true
      emit(text)
    }
    guard let chunk, chunk.hasChoice || chunk.errorKind != nil else { return false }
    state.process(chunk, hasText: hasText)
    state.hasDoneMarker = true
    if let failure = state.failure { throw failure }
    return true
  }

  /// Returns how the response was completed. Call it at the end of the body or once ``isComplete`` is true.
  ///
  /// - Throws: ``GeneratorError/Code/truncated`` if chunks arrived but neither a `finish_reason` nor a valid `[DONE]`,
  ///   ``GeneratorError/Code/failed`` if neither `[DONE]` nor any chunk arrived.
  func completion() throws(GeneratorError) -> Completion {
    // `[DONE]` does not complete a response if the last chunk after text contained neither a choice nor the usage.
    let isComplete = state.finishReason != nil || (state.hasDoneMarker && !state.isLastChunkEmpty)
    guard isComplete else {
      guard state.hasBegun else { throw GeneratorError(.failed, "The model server sent an empty response.") }
      throw GeneratorError(.truncated, "The model server's response ended early.")
    }
    return Completion(state.finishReason ?? .stop, usage: state.usage)
  }

  private struct State {
    var finishReason: FinishReason?
    var usage: Usage?
    var hasDoneMarker = false
    /// Whether a chunk has been received.
    var hasBegun = false
    /// Whether the last chunk after text had neither a choice nor the usage.
    var isLastChunkEmpty = false
    var hasText = false
    var failure: GeneratorError?

    mutating func fail(_ kind: String = "") {
      guard failure == nil else { return }
      failure = GeneratorError(.failed, "The model server reported an error.", detail: "error \(kind)")
    }

    /// Another Sluice says whether the same request can succeed later.
    mutating func readRetriable(of data: borrowing Span<UInt8>) {
      guard case .bool(let isRetriable)? = (try? JSON(parsing: data))?["error"]?["retriable"] else { return }
      failure?.isRetriable = isRetriable
    }

    /// - Parameter hasText: whether the chunk contains text.
    mutating func process(_ chunk: Chunk, hasText: Bool) {
      hasBegun = true
      if let kind = chunk.errorKind { return fail(kind) }
      if hasText { self.hasText = true }
      isLastChunkEmpty = self.hasText && !chunk.hasChoice && chunk.usage == nil
      if let reason = chunk.finishReason {
        finishReason = FinishReason(rawValue: reason)
        if finishReason?.isCompletion == false {
          failure = GeneratorError(
            .failed, "The model server stopped for a reason other than completion.",
            detail: "finish_reason \(reason.plainWord)")
        }
      }
      if let usage = chunk.usage { self.usage = usage }
    }
  }
}
