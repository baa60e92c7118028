import CSimdJSON

/// One `chat.completion.chunk`, or the object that a server sends in its place.
struct Chunk: Equatable {
  var finishReason: String?
  /// Set if the object reports an error or is not a chunk: the error's `type` and `code`, such as
  /// `invalid_request_error model_not_found`, as far as they are plain words.
  var errorKind: String?
  /// Whether the choices contain more than text of the first one.
  var hasMore = false
  /// Whether there are other members that belong to the output, or details of the usage.
  var hasMembers = false
  /// Whether there are members that the server repeats in every chunk, such as `system_fingerprint`.
  var hasRepeatedMembers = false
  /// Whether the chunk has a choice, of any index.
  var hasChoice = false
  var usage: Usage?

  /// Whether the text ends with this chunk or has ended before.
  var isLast: Bool { finishReason != nil || usage != nil }
}

/// A parser for chunks that uses simdjson and reuses its buffers. One per loop.
@safe
final class ChunkParser {
  private let parser: OpaquePointer

  init() {
    guard let parser = unsafe csimdjson_parser_new() else { fatalError("out of memory") }
    unsafe self.parser = parser
  }

  deinit { unsafe csimdjson_parser_free(parser) }

  /// Returns the chunk in `json`, or nil if it is not a JSON object.
  ///
  /// - Parameter onContent: called with the text of the chunk, in UTF-8, if it is not empty and there is neither more
  ///   nor an error. The text is valid only during the call.
  func read(_ json: borrowing Span<UInt8>, onContent: (borrowing Span<UInt8>) -> Void = { _ in }) -> Chunk? {
    // Safe: the texts point into the parser's buffers, which are not reused during the call.
    unsafe json.withUnsafeBufferPointer { bytes in
      var raw = unsafe csimdjson_chunk()
      guard let base = bytes.baseAddress, unsafe csimdjson_read_chunk(parser, base, bytes.count, &raw) else {
        return nil
      }
      if unsafe !raw.has_error, unsafe !raw.has_more, let text = unsafe raw.content.bytes, unsafe raw.content.count > 0
      {
        unsafe onContent(UnsafeBufferPointer(start: text, count: raw.content.count).span)
      }
      var chunk = unsafe Chunk(finishReason: text(raw.finish_reason))
      chunk.hasMore = unsafe raw.has_more
      chunk.hasMembers = unsafe raw.has_members
      chunk.hasRepeatedMembers = unsafe raw.has_repeated_members
      chunk.hasChoice = unsafe raw.has_choice
      if unsafe raw.has_error {
        let (type, code) = unsafe (text(raw.error_type)?.plainWord ?? "", text(raw.error_code)?.plainWord ?? "")
        chunk.errorKind = [type, code == type ? "" : code].filter { !$0.isEmpty }.joined(separator: " ")
      }
      if unsafe raw.has_usage {
        chunk.usage = unsafe Usage(
          promptTokens: Int(raw.prompt_tokens), completionTokens: Int(raw.completion_tokens),
          totalTokens: Int(raw.total_tokens))
      }
      return chunk
    }
  }

  @unsafe private func text(_ raw: csimdjson_text) -> String? {
    guard let bytes = unsafe raw.bytes else { return nil }
    return unsafe String(decoding: UnsafeBufferPointer(start: bytes, count: raw.count), as: UTF8.self)
  }
}

extension String {
  /// The string if it is a plain word, which is safe to log; otherwise an empty string.
  var plainWord: String {
    let isPlain = utf8.count <= 64 && allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    return isPlain ? self : ""
  }
}
