import CSimdJSON

/// The error of a text that is not JSON, is neither an array nor an object, or is nested too deeply.
public struct JSONError: Error, Sendable {}

extension JSON {
  /// The default maximum nesting depth of arrays and objects.
  public static let maximumDepth = 64

  /// Parses a JSON array or object with simdjson, strictly by RFC 8259. Members keep their order. An unpaired surrogate
  /// in an escape becomes U+FFFD. Can be used on any thread; a megabyte takes a few milliseconds.
  ///
  /// - Parameter depth: the maximum nesting depth of arrays and objects.
  public init(parsing text: [UInt8], depth: Int = maximumDepth) throws(JSONError) {
    try self.init(parsing: text.span, depth: depth)
  }

  /// Parses a JSON array or object from borrowed bytes, by the same rules.
  public init(parsing text: borrowing Span<UInt8>, depth: Int = maximumDepth) throws(JSONError) {
    guard let parser = unsafe csimdjson_parser_new() else { fatalError("out of memory") }
    defer { unsafe csimdjson_parser_free(parser) }
    // Safe: the parser owns the tokens and their texts, which are copied before it is freed.
    let json = unsafe text.withUnsafeBufferPointer { bytes -> JSON? in
      var tokens: UnsafePointer<csimdjson_token>?
      var count = 0
      guard let base = bytes.baseAddress,
        unsafe csimdjson_read(parser, base, bytes.count, depth, &tokens, &count)
      else { return nil }
      var reader = unsafe TokenReader(tokens: UnsafeBufferPointer(start: tokens, count: count))
      return unsafe reader.next()
    }
    guard let json else { throw JSONError() }
    self = json
  }
}

/// A builder of values from tokens. simdjson guarantees that the tokens are in order and balanced.
@unsafe
private struct TokenReader {
  let tokens: UnsafeBufferPointer<csimdjson_token>
  var index = 0

  /// Returns the next value, or nil at the end of an array or an object.
  mutating func next() -> JSON? {
    guard unsafe index < tokens.count else { return nil }
    let token = unsafe tokens[index]
    unsafe index += 1
    switch unsafe token.kind {
    case CSIMDJSON_TRUE: return .bool(true)
    case CSIMDJSON_FALSE: return .bool(false)
    case CSIMDJSON_NUMBER:
      let text = unsafe Self.text(token)
      // A number that the encoder would write differently, such as -0, retains its original text.
      guard let number = Int(text), String(number) == text else { return .literal(text) }
      return .integer(number)
    case CSIMDJSON_STRING: return .string(unsafe Self.text(token))
    case CSIMDJSON_ARRAY:
      var values: [JSON] = []
      while let value = unsafe next() { values.append(value) }
      return .array(values)
    case CSIMDJSON_OBJECT:
      var members: [JSON.Members.Member] = []
      while case .string(let name)? = unsafe next(), let value = unsafe next() {
        members.append(JSON.Members.Member(name: name, value: value))
      }
      return .object(JSON.Members(members))
    case CSIMDJSON_END: return nil
    default: return .null
    }
  }

  private static func text(_ token: csimdjson_token) -> String {
    guard let bytes = unsafe token.text.bytes else { return "" }
    return unsafe String(decoding: UnsafeBufferPointer(start: bytes, count: token.text.count), as: UTF8.self)
  }
}
