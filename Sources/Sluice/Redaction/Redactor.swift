import Bytes

/// A redactor for a text that arrives in deltas. Its joined output is the redacted complete text, however the text is
/// split. It withholds only text that can still become a match.
///
/// The earliest match wins. If several rules match at the same position, the first of them in the file wins.
final class Redactor {
  let rules: [RedactionRules.Rule]
  private let matchContext = MatchContext()
  /// The number of processed bytes that stay in the buffer for lookbehind.
  private let contextBytes: Int
  /// The context for lookbehind, followed by the withheld text.
  private var buffer: [UInt8] = []
  /// The offset of the withheld text in the buffer.
  private var pendingStart = 0

  /// The failure, if one occurred; no text is output after it.
  private var failure: Failure?
  /// The next match of each rule, if known.
  private var searches: [Search]

  private enum Search {
    case unknown
    case nothing
    case match(Pattern.Match)
  }

  init(_ rules: [RedactionRules.Rule]) {
    self.rules = rules
    // Generous, because PCRE2 does not report how far nested assertions look back. At least one character, because the
    // start of the buffer is not the start of the text.
    contextBytes = max(1024, 8 * (rules.map(\.pattern.lookbehind).max() ?? 0))
    searches = Array(repeating: .unknown, count: rules.count)
  }

  /// The size of the buffer, for tests.
  var bufferedBytes: Int { buffer.count }

  /// The maximum number of withheld bytes. A pattern that could match more fails the stream.
  static let maximumPendingBytes = 16 * 1024

  /// Appends a delta of the text.
  ///
  /// - Parameter text: the delta, in valid UTF-8.
  /// - Returns: the redacted text that can be sent now.
  /// - Throws: ``Failure`` when a pattern takes too long or withholds too much. All later calls then throw it again.
  func feed(_ text: borrowing Span<UInt8>) throws(Failure) -> [UInt8] {
    buffer.append(text)
    return try redact(isFinal: false)
  }

  /// Returns the remaining redacted text; no more input follows.
  func finish() throws(Failure) -> [UInt8] { try redact(isFinal: true) }

  /// Returns a complete text, redacted.
  static func redact(_ text: String, by rules: [RedactionRules.Rule]) throws(Failure) -> String {
    if rules.isEmpty { return text }
    let redactor = Redactor(rules)
    redactor.buffer = Array(text.utf8)
    return String(decoding: try redactor.finish(), as: UTF8.self)
  }

  private func redact(isFinal: Bool) throws(Failure) -> [UInt8] {
    if let failure { throw failure }
    do throws(Failure) { return try replaceMatches(isFinal: isFinal) } catch {
      failure = error
      throw error
    }
  }

  private func replaceMatches(isFinal: Bool) throws(Failure) -> [UInt8] {
    var output: [UInt8] = []
    // More input can change every rule's next match.
    for index in searches.indices { searches[index] = .unknown }
    search: while pendingStart < buffer.count {
      switch try firstMatch(isFinal: isFinal) {
      case nil:
        output.append(contentsOf: buffer[pendingStart...])
        pendingStart = buffer.count
      case (.full(let range), let rule)?:
        output.append(contentsOf: buffer[pendingStart..<range.lowerBound])
        output.append(contentsOf: rule.replacement.utf8)
        pendingStart = range.upperBound
        rule.count.increment()
      case (.partial(let start), let rule)?:
        output.append(contentsOf: buffer[pendingStart..<start])
        pendingStart = start
        guard buffer.count - pendingStart <= Self.maximumPendingBytes else {
          throw Self.failure(rule, "could match more than \(Self.maximumPendingBytes) bytes")
        }
        break search
      }
    }
    dropContext()
    return output
  }

  /// Returns the first match of all rules in the withheld text. A rule searches again only when that text starts after
  /// the match it searches: otherwise each of many matches of one rule would make every other rule search all of the text.
  private func firstMatch(isFinal: Bool) throws(Failure) -> (Pattern.Match, RedactionRules.Rule)? {
    var best: (match: Pattern.Match, rule: RedactionRules.Rule)?
    let buffer = buffer
    for (index, rule) in rules.enumerated() {
      switch searches[index] {
      case .nothing: continue
      case .match(let match) where match.start >= pendingStart: break
      default:
        do throws(PatternError) {
          let match = try rule.pattern.firstMatch(in: buffer.span, from: pendingStart, isFinal: isFinal, matchContext)
          searches[index] = match.map(Search.match) ?? .nothing
        } catch { throw Self.failure(rule, error.reason) }
      }
      guard case .match(let match) = searches[index] else { continue }
      if best.map({ match.start < $0.match.start }) ?? true { best = (match, rule) }
    }
    return best
  }

  private func dropContext() {
    // Rarely: what is retained has to be moved.
    guard pendingStart > 4096 + contextBytes || pendingStart == buffer.count && pendingStart > 2 * contextBytes else {
      return
    }
    var start = pendingStart - contextBytes
    // The buffer must not start in the middle of a character.
    while start < pendingStart, buffer[start] & 0xC0 == 0x80 { start += 1 }
    buffer.removeSubrange(0..<start)
    pendingStart -= start
  }

  private static func failure(_ rule: RedactionRules.Rule, _ reason: String) -> Failure {
    Failure(.internalError, "The response could not be redacted.", detail: "the pattern \"\(rule.name)\": \(reason)")
  }
}

extension Pattern.Match {
  fileprivate var start: Int {
    switch self {
    case .full(let range): range.lowerBound
    case .partial(let start): start
    }
  }
}
