/// Takes what matches out of a text that comes in pieces: what comes out, joined, is the whole text redacted, however it
/// was cut. What could still become a match is pendingStart back, and nothing else.
///
/// At each place the rule that matches first counts, and of several that match there the first in the file.
final class Redactor {
  let rules: [RedactionRules.Rule]
  private let limits = MatchContext()
  /// How much of what is done with has to stay for looking behind, in bytes.
  private let contextBytes: Int
  /// That, and what is pendingStart back.
  private var buffer: [UInt8] = []
  /// Where what is pendingStart back begins.
  private var pendingStart = 0

  /// What it failed with: nothing may go out behind that.
  private var failure: Failure?
  /// Of each rule what it finds next, as long as that is known.
  private var found: [Search]

  private enum Search {
    case unknown
    case nothing
    case match(Pattern.Match)
  }

  init(_ rules: [RedactionRules.Rule]) {
    self.rules = rules
    // Generous: PCRE2 does not know how far nested assertions look back. And one character at least, for the beginning
    // of the buffer is not that of the text.
    contextBytes = max(1024, 8 * (rules.map(\.pattern.lookbehind).max() ?? 0))
    found = Array(repeating: .unknown, count: rules.count)
  }

  /// What is kept of the text: for tests.
  var bufferedBytes: Int { buffer.count }

  /// The most that may be pendingStart back: a pattern that could match more than this fails the stream.
  static let maximumPendingBytes = 16 * 1024

  /// Takes in a piece of the text.
  ///
  /// - Returns: what may go out now.
  /// - Throws: when a pattern takes too long, or holds back too much. Nothing more comes out then, ever.
  func feed(_ text: String) throws(Failure) -> String {
    buffer.append(contentsOf: text.utf8)
    return try redact(isFinal: false)
  }

  /// The text is over.
  func finish() throws(Failure) -> String { try redact(isFinal: true) }

  /// A whole text.
  static func redact(_ text: String, by rules: [RedactionRules.Rule]) throws(Failure) -> String {
    if rules.isEmpty { return text }
    let redactor = Redactor(rules)
    redactor.buffer = Array(text.utf8)
    return try redactor.finish()
  }

  private func redact(isFinal: Bool) throws(Failure) -> String {
    if let failure { throw failure }
    do throws(Failure) { return try replaceMatches(isFinal: isFinal) } catch {
      failure = error
      throw error
    }
  }

  private func replaceMatches(isFinal: Bool) throws(Failure) -> String {
    var output: [UInt8] = []
    // With more of the text everything may be otherwise.
    for index in found.indices { found[index] = .unknown }
    search: while pendingStart < buffer.count {
      switch try first(isFinal: isFinal) {
      case nil:
        output.append(contentsOf: buffer[pendingStart...])
        pendingStart = buffer.count
      case (.full(let range), let rule)?:
        output.append(contentsOf: buffer[pendingStart..<range.lowerBound])
        output.append(contentsOf: rule.replacement.utf8)
        pendingStart = range.upperBound
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
    return String(decoding: output, as: UTF8.self)
  }

  /// The first match, of all rules, in what is pendingStart back. A rule looks again only when what it found is behind that:
  /// else many matches of one would have every other look through all of the text for each.
  private func first(isFinal: Bool) throws(Failure) -> (Pattern.Match, RedactionRules.Rule)? {
    var best: (match: Pattern.Match, rule: RedactionRules.Rule)?
    let buffer = buffer
    for (index, rule) in rules.enumerated() {
      switch found[index] {
      case .nothing: continue
      case .match(let match) where match.start >= pendingStart: break
      default:
        do throws(PatternError) {
          let match = try rule.pattern.firstMatch(in: buffer.span, from: pendingStart, isFinal: isFinal, limits)
          found[index] = match.map(Search.match) ?? .nothing
        } catch { throw Self.failure(rule, error.reason) }
      }
      guard case .match(let match) = found[index] else { continue }
      if best.map({ match.start < $0.match.start }) ?? true { best = (match, rule) }
    }
    return best
  }

  private func dropContext() {
    guard pendingStart > 4096 + contextBytes || pendingStart == buffer.count && pendingStart > contextBytes else {
      return
    }
    var start = pendingStart - contextBytes
    // Not in the middle of a character.
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
