import CSimdJSON

/// One `chat.completion.chunk`, or what a server sends in its place.
struct Chunk: Equatable {
  var content: String?
  var finishReason: String?
  /// Set when it reports an error or is not a chunk: the error's `type` or `code` if that is a plain word, else empty.
  var errorKind: String?
  /// Whether the model works without having text: it reasons, or calls tools.
  var isActive = false
  /// Whether there is a choice at all.
  var hasChoice = false
  var usage: Usage?
}

/// Reads chunks with simdjson, into buffers that it keeps. One for each loop.
@safe
final class ChunkParser {
  private let parser: OpaquePointer

  init() {
    guard let parser = unsafe csimdjson_parser_new() else { fatalError("out of memory") }
    unsafe self.parser = parser
  }

  deinit { unsafe csimdjson_parser_free(parser) }

  /// Nil when `json` is not a JSON object.
  func read(_ json: borrowing Span<UInt8>) -> Chunk? {
    // Safe: the texts point into the parser's buffers and are copied before it is used again.
    unsafe json.withUnsafeBufferPointer { bytes in
      var raw = unsafe csimdjson_chunk()
      guard let base = bytes.baseAddress, unsafe csimdjson_read_chunk(parser, base, bytes.count, &raw) else {
        return nil
      }
      var chunk = unsafe Chunk(content: text(raw.content), finishReason: text(raw.finish_reason))
      chunk.isActive = unsafe raw.is_active
      chunk.hasChoice = unsafe raw.has_choice
      if unsafe raw.has_error { chunk.errorKind = unsafe (text(raw.error_kind) ?? "").plainWord }
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
  /// The text if it is a plain word, which may go into the log; else nothing.
  var plainWord: String {
    let isPlain = utf8.count <= 64 && allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    return isPlain ? self : ""
  }
}
