import CSimdJSON

/// What one `chat.completion.chunk` says.
struct Chunk: Equatable {
  var content: String?
  var finishReason: String?
  /// Set when it reports an error: the error's `type` or `code`, as far as that is a plain word. Empty without.
  var errorKind: String?
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
      if unsafe raw.has_error {
        let kind = unsafe text(raw.error_kind) ?? ""
        let isPlain =
          kind.utf8.count <= 64 && kind.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
        chunk.errorKind = isPlain ? kind : ""
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
