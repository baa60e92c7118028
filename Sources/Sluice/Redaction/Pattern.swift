import CPCRE2
import EventLoop

/// Why a line of a file is of no use.
struct PatternError: Error, Equatable {
  let reason: String
}

/// A compiled regular expression (pcre2api(3)) of which a match may come in pieces (pcre2partial(3)). Use it on any
/// thread: matching does not change it.
@safe
final class Pattern: Sendable {
  enum Match: Equatable {
    /// Bytes of the subject.
    case full(Range<Int>)
    /// What begins here could still become a match when more of the text comes.
    case partial(from: Int)
  }

  // Safe: PCRE2 only reads it after it was compiled.
  private nonisolated(unsafe) let code: OpaquePointer
  /// How many characters before a match it looks at, at most.
  let lookbehind: Int

  /// - Throws: why `text` cannot be used, with the place.
  init(_ text: String) throws(PatternError) {
    // What depends on where a search began, or ends one, means something else when the text comes in pieces.
    if let part = Self.unsupportedConstruct(text) {
      throw PatternError(reason: "\(part) cannot match across deltas")
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
    // Where there is no JIT, matching is slower and otherwise the same.
    unsafe pcre2_jit_compile_8(code, UInt32(PCRE2_JIT_COMPLETE) | PCRE2_JIT_PARTIAL_HARD)
  }

  deinit { unsafe pcre2_code_free_8(code) }

  /// The first match in `subject` from `start` on, or what could become one.
  ///
  /// - Parameter isFinal: whether nothing follows the subject.
  /// - Throws: when it takes more than a match may (``MatchContext``).
  func firstMatch(
    in subject: borrowing Span<UInt8>, from start: Int, isFinal: Bool, _ limits: MatchContext
  ) throws(PatternError) -> Match? {
    let options = UInt32(PCRE2_NO_UTF_CHECK) | PCRE2_NOTEMPTY | (isFinal ? 0 : PCRE2_PARTIAL_HARD)
    // Safe: the subject is only read, during the call; the text is UTF-8, being a string's.
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

/// Where a match is noted, and how much it may take. One for each text.
@safe
final class MatchContext {
  fileprivate let data: OpaquePointer
  fileprivate let context: OpaquePointer

  /// Steps of one match, at most: a pattern that backtracks without end is given up after some milliseconds.
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
