import EventStream

/// Reads the body of a streamed chat completion: bytes in, pieces of text out, and whether it is complete. A value;
/// no I/O.
///
/// It takes what OpenAI, vLLM, llama.cpp, Ollama and OpenRouter send: comments, events without choices, a
/// `finish_reason` without `[DONE]`, `[DONE]` without a `finish_reason`, an error in mid-stream with or without
/// `[DONE]` after it.
struct CompletionReader {
  private var parser: EventStreamParser
  private var state = State()
  private let chunks: ChunkParser

  /// - Parameter maximumTextBytes: how long the response may be. One event can hold all of it, in which each byte can be
  ///   escaped by six.
  init(chunks: ChunkParser, maximumTextBytes: Int = 4 << 20) {
    self.chunks = chunks
    parser = EventStreamParser(maximumEventBytes: 6 * min(maximumTextBytes, 1 << 32) + 64 * 1024)
  }

  /// Whether nothing more is to be expected: `[DONE]` was there.
  var isComplete: Bool { state.isDone }

  /// Whether the text is complete, though `[DONE]` may still come.
  var hasFinishReason: Bool { state.finishReason != nil }

  /// Takes in a piece of the body.
  ///
  /// - Parameters:
  ///   - emit: called with each delta of the text. None is empty.
  ///   - onActivity: called when the model works without having text.
  /// - Throws: what the upstream reports in mid-stream, or that it does not speak the protocol. Text that came
  ///   before has been given to `emit`.
  mutating func feed(
    _ bytes: borrowing Span<UInt8>, emit: (String) -> Void, onActivity: () -> Void = {}
  ) throws(GeneratorError) {
    try Self.feed(bytes, to: &parser, &state, chunks, emit, onActivity)
  }

  /// Apart, so that the parser and what it calls can each change their own part of the reader.
  private static func feed(
    _ bytes: borrowing Span<UInt8>, to parser: inout EventStreamParser, _ state: inout State, _ chunks: ChunkParser,
    _ emit: (String) -> Void, _ onActivity: () -> Void
  ) throws(GeneratorError) {
    do {
      // Failures are reported by an event of this type, with data or without, by a field of this name, which llama.cpp has
      // beside the standard's, or by bare JSON where a field should be.
      func failOnError(_ name: borrowing Span<UInt8>, _ value: borrowing Span<UInt8>) {
        let isError = name.equals("error") || (name.equals("event") && value.equals("error"))
        if isError || name[0] == UInt8(ascii: "{"), !state.isDone { state.fail() }
      }
      try parser.feed(bytes, onOtherField: failOnError) { _, data, _ in
        guard !state.isDone, state.failure == nil else { return }
        if data.equals("[DONE]") {
          state.isDone = true
        } else if let chunk = chunks.read(data) {
          state.take(chunk, emit)
          if chunk.isActive { onActivity() }
        } else {
          state.failure = GeneratorError(.failed, "The model server sent an event that is not a JSON object.")
        }
      }
    } catch {
      throw GeneratorError(
        .failed, "The model server sent an event that exceeds the size limit.", detail: "over \(error.limit) bytes")
    }
    if let failure = state.failure { throw failure }
  }

  /// How the answer ended, to be asked when the body is over or ``isComplete``.
  ///
  /// - Throws: ``GeneratorError/Code/truncated`` when neither `[DONE]` nor a `finish_reason` came,
  ///   ``GeneratorError/Code/failed`` when nothing came at all.
  func completion() throws(GeneratorError) -> Completion {
    // An event that is no part of an answer, and then nothing but the end: that is not how an answer is completed.
    let isComplete = state.finishReason != nil || (state.isDone && !state.endsOddly)
    guard isComplete else {
      guard state.hasBegun else { throw GeneratorError(.failed, "The model server sent an empty response.") }
      throw GeneratorError(.truncated, "The model server's response ended early.")
    }
    return Completion(state.finishReason ?? .stop, usage: state.usage)
  }

  private struct State {
    var finishReason: FinishReason?
    var usage: Usage?
    var isDone = false
    /// Whether a chunk has come at all.
    var hasBegun = false
    /// Whether the last thing that came after text had neither a choice nor the usage.
    var endsOddly = false
    var hasText = false
    var failure: GeneratorError?

    mutating func fail(_ kind: String = "") {
      guard failure == nil else { return }
      failure = GeneratorError(.failed, "The model server reported an error.", detail: "error \(kind)")
    }

    mutating func take(_ chunk: Chunk, _ emit: (String) -> Void) {
      hasBegun = true
      if let kind = chunk.errorKind { return fail(kind) }
      if let content = chunk.content, !content.isEmpty {
        hasText = true
        emit(content)
      }
      endsOddly = hasText && !chunk.hasChoice && chunk.usage == nil
      if let reason = chunk.finishReason {
        finishReason = FinishReason(rawValue: reason)
        if finishReason?.isCompletion == false {
          failure = GeneratorError(
            .failed, "The model server ended the response before it was complete.",
            detail: "finish_reason \(reason.plainWord)")
        }
      }
      if let usage = chunk.usage { self.usage = usage }
    }
  }
}
