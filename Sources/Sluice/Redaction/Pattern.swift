import CLazyLibraries
import CPCRE2
import EventLoop

/// An error in a pattern, or in its line of a redaction file.
struct PatternError: Error, Equatable {
  let reason: String
}

/// A compiled regular expression (pcre2api(3)) that can also match partially, at the end of incomplete text
/// (pcre2partial(3)). It can be used on any thread, because matching does not change it.
@safe
final class Pattern: Sendable {
  enum Match: Equatable {
    /// The range of the match, in bytes of the subject.
    case full(Range<Int>)
    /// The start of text that can still become a match when more text follows.
    case partial(from: Int)
  }

  // Safe: PCRE2 only reads it once `init` has compiled it.
  private nonisolated(unsafe) let code: OpaquePointer
  /// The maximum number of characters before a match that lookbehind assertions examine.
  let lookbehind: Int

  /// - Throws: ``PatternError`` with the reason and, for a syntax error, its position in `text`.
  init(_ text: String) throws(PatternError) {
    // The meaning of \G, \K and verbs such as (*ACCEPT) depends on where a search starts or ends, so it would change
    // with the split of the text into deltas.
    if let part = Self.unsupportedConstruct(text) {
      throw PatternError(reason: "\(part) cannot match across deltas")
    }
    if let reason = unsafe clazy_load_pcre2() {
      throw PatternError(reason: "libpcre2 cannot be loaded: \(unsafe String(cString: reason))")
    }
    var number: CInt = 0
    var offset = 0
    let bytes = Array(text.utf8)
    guard
      let code = unsafe pcre2_compile_8(
        bytes, bytes.count, UInt32(PCRE2_UTF) | PCRE2_NEVER_BACKSLASH_C, &number, &offset, nil)
    else {
      throw PatternError(reason: "\(Self.message(number)), at character \(offset + 1) of the pattern")
    }
    unsafe self.code = code
    var (matchesNothing, lookbehind): (UInt32, UInt32) = (0, 0)
    unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_MATCHEMPTY), &matchesNothing)
    unsafe pcre2_pattern_info_8(code, UInt32(PCRE2_INFO_MAXLOOKBEHIND), &lookbehind)
    self.lookbehind = Int(lookbehind)
    guard matchesNothing == 0 else { throw PatternError(reason: "the pattern must not match the empty string") }
    // Fails harmlessly on platforms without JIT support: matching is only slower.
    unsafe pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE) | PCRE2_JIT_PARTIAL_HARD)
  }

  deinit { unsafe pcre2_code_free_8(code) }

  /// Returns the first match, complete or partial, in `subject` at or after `start`.
  ///
  /// - Parameter isFinal: whether no more text follows the subject; there are then no partial matches.
  /// - Throws: ``PatternError`` when matching exceeds the limits of ``MatchContext``.
  func firstMatch(
    in subject: borrowing Span<UInt8>, from start: Int, isFinal: Bool, _ limits: MatchContext
  ) throws(PatternError) -> Match? {
    let options = UInt32(PCRE2_NO_UTF_CHECK) | PCRE2_NOTEMPTY | (isFinal ? 0 : PCRE2_PARTIAL_HARD)
    // Safe: PCRE2 only reads the subject, and only during the call. The subject is valid UTF-8, because its bytes come
    // from strings, or from JSON that simdjson has validated.
    let result = unsafe subject.withUnsafeBufferPointer { bytes in
      unsafe pcre2_match_8(code, bytes.baseAddress, bytes.count, start, options, limits.data, limits.context)
    }
    if result == PCRE2_ERROR_NOMATCH { return nil }
    guard result >= 0 || result == PCRE2_ERROR_PARTIAL, let vector = unsafe pcre2_get_ovector_pointer_8(limits.data)
    else {
      throw PatternError(reason: Self.message(result))
    }
    let (from, to) = unsafe (vector[0], vector[1])
    return result == PCRE2_ERROR_PARTIAL ? .partial(from: from) : .full(from..<to)
  }

  private static func unsupportedConstruct(_ text: String) -> String? {
    var isEscaped = false
    var previous: Character = " "
    for character in text {
      if isEscaped {
        if character == "K" || character == "G" { return "\\\(character)" }
        isEscaped = false
        previous = " "
        continue
      }
      if previous == "(", character == "*" { return "(*" }
      isEscaped = character == "\\"
      previous = character
    }
    return nil
  }

  private static func message(_ number: CInt) -> String {
    var buffer = [UInt8](repeating: 0, count: 256)
    let count = unsafe pcre2_get_error_message_8(number, &buffer, buffer.count)
    return String(decoding: buffer.prefix(max(0, Int(count))), as: UTF8.self)
  }
}

/// The storage for match results, and the limits of one match. Each text has its own.
@safe
final class MatchContext {
  fileprivate let data: OpaquePointer
  fileprivate let context: OpaquePointer

  /// The maximum number of steps of one match. It ends catastrophic backtracking after a few milliseconds.
  private static let steps: UInt32 = 200_000

  init() {
    guard let data = unsafe pcre2_match_data_create_8(1, nil), let context = unsafe pcre2_match_context_create_8(nil)
    else {
      fatalError("out of memory")
    }
    unsafe self.data = data
    unsafe self.context = context
    unsafe pcre2_set_match_limit_8(context, Self.steps)
    unsafe pcre2_set_heap_limit_8(context, 1024)
  }

  deinit {
    unsafe pcre2_match_data_free_8(data)
    unsafe pcre2_match_context_free_8(context)
  }
}
