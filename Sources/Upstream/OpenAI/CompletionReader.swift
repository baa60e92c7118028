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

  /// - Parameters:
  ///   - choices: the number of choices that the request asks for.
  ///   - maximumTextBytes: the maximum length of the response. One event can contain all of it, with each byte escaped
  ///     as six bytes.
  init(chunks: ChunkParser, choices: Int = 1, maximumTextBytes: Int = 4 << 20) {
    state.maximumMemberBytes = maximumTextBytes
    state.expectedChoices = choices
    self.chunks = chunks
    maximumEventBytes = 6 * min(maximumTextBytes, 1 << 32) + 64 * 1024
    parser = EventStreamParser(maximumEventBytes: maximumEventBytes)
  }

  /// The maximum size of an event, and of a response that is one object.
  let maximumEventBytes: Int

  /// Whether `[DONE]` has been received, so that nothing more follows.
  var isComplete: Bool { state.hasDoneMarker }

  /// Whether all choices are complete, although `[DONE]` can still follow.
  var isFinished: Bool {
    canEnd && state.choices.isComplete && state.choices.finishedChoices + 1 >= state.expectedChoices
  }

  /// Whether the response may end here: the first choice has a finish reason, and so have the others that have begun if
  /// the request asks for them. A server can give fewer.
  var canEnd: Bool { state.finishReason != nil && (state.expectedChoices == 1 || state.choices.isComplete) }

  /// Processes a chunk of the body.
  ///
  /// - Parameters:
  ///   - emit: called with each delta of the text in UTF-8, which is never empty and is valid only during the call.
  ///   - emitChunk: called with each delta that is more than text.
  /// - Throws: an error that the upstream reports in mid-stream, or a protocol violation. Earlier deltas have already
  ///   been passed on.
  mutating func feed(
    _ bytes: borrowing Span<UInt8>, emit: (borrowing Span<UInt8>) -> Void, emitChunk: (OutputChunk) -> Void = { _ in }
  ) throws(GeneratorError) {
    try Self.feed(bytes, to: &parser, &state, chunks, emit, emitChunk)
  }

  /// Static, so that the parser and its closures can modify separate parts of the reader.
  private static func feed(
    _ bytes: borrowing Span<UInt8>, to parser: inout EventStreamParser, _ state: inout State, _ chunks: ChunkParser,
    _ emit: (borrowing Span<UInt8>) -> Void, _ emitChunk: (OutputChunk) -> Void
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
        if data.isDone {
          state.hasDoneMarker = true
          return
        }
        if !read(data, &state, chunks, emit, emitChunk) {
          state.failure = GeneratorError(.failed, "The model server sent an event that is not a JSON object.")
        }
      }
    } catch {
      throw Self.tooLong(error.limit)
    }
    if let failure = state.failure { throw failure }
  }

  /// Reads one object. Returns false if it is none.
  private static func read(
    _ json: borrowing Span<UInt8>, _ state: inout State, _ chunks: ChunkParser,
    _ emit: (borrowing Span<UInt8>) -> Void, _ emitChunk: (OutputChunk) -> Void
  ) -> Bool {
    var hasText = false
    let chunk = chunks.read(json) { text in
      hasText = true
      emit(text)
    }
    guard let chunk else { return false }
    state.process(chunk, hasText: hasText)
    if chunk.errorKind != nil {
      state.readRetriable(of: json)
    } else if chunk.hasMore || chunk.hasMembers || state.mustReadMembers(of: chunk) {
      guard let json = try? JSON(parsing: json, depth: Self.maximumDepth), let more = state.read(json) else {
        return false
      }
      if chunk.hasRepeatedMembers { state.didReadMembers(of: chunk) }
      // Otherwise its text has been emitted.
      if chunk.hasMore, !more.isEmpty { emitChunk(more) }
    } else if chunk.hasRepeatedMembers, !state.hasReadLastMembers, state.firstChunk.isEmpty {
      state.firstChunk.append(json)
    }
    return true
  }

  /// The maximum nesting depth of a chunk that is more than text.
  private static let maximumDepth = 256

  static func tooLong(_ limit: Int) -> GeneratorError {
    GeneratorError(
      .failed, "The model server sent an event that exceeds the size limit.", detail: "over \(limit) bytes")
  }

  /// Processes a response that is one `chat.completion` object instead of a stream. ``completion()`` follows.
  ///
  /// - Returns: false if it is none.
  /// - Throws: the error that it reports.
  mutating func read(
    whole json: borrowing Span<UInt8>, emit: (borrowing Span<UInt8>) -> Void, emitChunk: (OutputChunk) -> Void
  ) throws(GeneratorError) -> Bool {
    guard Self.read(json, &state, chunks, emit, emitChunk) else { return false }
    if let failure = state.failure { throw failure }
    state.hasDoneMarker = true
    return state.hasChoice
  }

  /// Returns how the response was completed. Call it at the end of the body or once ``isComplete`` is true.
  ///
  /// - Throws: ``GeneratorError/Code/truncated`` if chunks arrived but neither a `finish_reason` nor a valid `[DONE]`,
  ///   ``GeneratorError/Code/failed`` if neither `[DONE]` nor any chunk arrived.
  func completion() throws(GeneratorError) -> Completion {
    // `[DONE]` does not complete a response if the last chunk after text contained neither a choice nor the usage.
    let isComplete = canEnd || (state.hasDoneMarker && !state.isLastChunkEmpty)
    guard isComplete else {
      guard state.hasBegun else { throw GeneratorError(.failed, "The model server sent an empty response.") }
      throw GeneratorError(.truncated, "The model server's response ended early.")
    }
    var completion = Completion(state.finishReason ?? .stop, usage: state.usage)
    let members = state.allMembers
    if !members.all.isEmpty { completion.members = members }
    return completion
  }

  private struct State {
    var finishReason: FinishReason?
    var usage: Usage?
    var expectedChoices = 1
    var choices = ChoiceReader()
    /// The members beside the choices and the usage.
    var members: JSON.Members = [:]
    /// The first chunk with members that a server repeats. They are read at the end, if the last chunk has none.
    var firstChunk: [UInt8] = []
    /// Whether ``members`` has those that a server repeats, from a chunk at the end of the text.
    var hasReadLastMembers = false
    /// The maximum size of ``members``, in bytes.
    var maximumMemberBytes = 0
    var hasDoneMarker = false
    /// Whether a chunk has been received.
    var hasBegun = false
    /// Whether the last chunk after output had neither a choice nor the usage.
    var isLastChunkEmpty = false
    var hasOutput = false
    /// Whether a chunk had a choice.
    var hasChoice = false
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

    /// Whether the members that a server repeats are read from this chunk: from the one that ends the text.
    func mustReadMembers(of chunk: Chunk) -> Bool {
      chunk.hasRepeatedMembers && !hasReadLastMembers && chunk.isLast
    }

    mutating func didReadMembers(of chunk: Chunk) {
      firstChunk = []
      hasReadLastMembers = chunk.isLast
    }

    /// Reads what a chunk has beside text. Returns nil if that is not possible.
    mutating func read(_ json: JSON) -> OutputChunk? {
      if let details = json["usage"].map(Usage.details), !details.all.isEmpty { usage?.details = details }
      members.merge(Self.members(of: json))
      if JSON.object(members).byteCount > maximumMemberBytes { failure = CompletionReader.tooLong(maximumMemberBytes) }
      let chunk = choices.read(json)
      if let reason = choices.failedReason { fail(reason: reason.rawValue) }
      return chunk
    }

    private static func members(of json: JSON) -> JSON.Members {
      JSON.Members(
        (json.object?.all ?? []).filter { !ownMembers.contains($0.name) && $0.value != .null })
    }

    /// The members that any chunk has.
    var allMembers: JSON.Members {
      guard !firstChunk.isEmpty, let first = try? JSON(parsing: firstChunk, depth: CompletionReader.maximumDepth) else {
        return members
      }
      var all = Self.members(of: first)
      all.merge(members)
      return all
    }

    /// The members of a chunk that are read one by one or, such as the id, are Sluice's own.
    private static let ownMembers: Set = [
      "id", "object", "created", "model", "choices", "usage", "error", "obfuscation",
    ]

    /// - Parameter hasText: whether the chunk contains text.
    mutating func process(_ chunk: Chunk, hasText: Bool) {
      hasBegun = true
      if let kind = chunk.errorKind { return fail(kind) }
      if hasText || chunk.hasMore { hasOutput = true }
      if chunk.hasChoice { hasChoice = true }
      isLastChunkEmpty = hasOutput && !chunk.hasChoice && chunk.usage == nil
      if let reason = chunk.finishReason {
        finishReason = FinishReason(rawValue: reason)
        if finishReason?.isCompletion == false { fail(reason: reason) }
      }
      if var usage = chunk.usage {
        usage.details = self.usage?.details ?? [:]
        self.usage = usage
      }
    }

    private mutating func fail(reason: String) {
      failure = GeneratorError(
        .failed, "The model server stopped for a reason other than completion.",
        detail: "finish_reason \(reason.plainWord)")
    }
  }
}

extension Span<UInt8> {
  /// Whether this is `[DONE]`, possibly followed by white space.
  fileprivate var isDone: Bool {
    guard count >= 6, extracting(0..<6).equals("[DONE]") else { return false }
    for index in 6..<count where self[index] != 0x20 && self[index] != 0x09 { return false }
    return true
  }
}
