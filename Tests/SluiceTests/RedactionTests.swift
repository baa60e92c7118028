import EventLoop
import JSON
import SluiceTesting
import Testing

@testable import Sluice

@Suite("Redaction")
struct RedactionTests {
  private static let usual = RedactionRules(
    parsing: """
      # what must not leave
      e-mail    [A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\\.[A-Za-z0-9-]{1,63}){1,8}
      api key\tsk-[A-Za-z0-9]{20,60}\t[key]
      card      \\b(?:\\d[ -]?){13,19}\\b    [card number]
      """)

  /// Returns the output for each delta, and the output at the end of the text.
  private func redactByDelta(_ rules: [RedactionRules.Rule], _ deltas: [String]) throws -> [String] {
    let redactor = Redactor(rules)
    return try deltas.map { try redactor.feed($0) } + [try redactor.finish()]
  }

  /// Returns the complete text redacted in one pass, as the reference for redaction of deltas.
  private func redactComplete(_ rules: [RedactionRules.Rule], _ text: String) throws -> String {
    let bytes = Array(text.utf8)
    let limits = MatchContext()
    var output: [UInt8] = []
    var index = 0
    while true {
      var best: (range: Range<Int>, rule: RedactionRules.Rule)?
      for rule in rules {
        guard case .full(let range)? = try rule.pattern.firstMatch(in: bytes.span, from: index, isFinal: true, limits)
        else { continue }
        if best.map({ range.lowerBound < $0.range.lowerBound }) ?? true { best = (range, rule) }
      }
      guard let best else { return String(decoding: output + bytes[index...], as: UTF8.self) }
      output += bytes[index..<best.range.lowerBound] + Array(best.rule.replacement.utf8)
      index = best.range.upperBound
    }
  }

  @Test("A match across any number of deltas is redacted, and text that cannot match is returned immediately")
  func spanning() throws {
    let rules = Self.usual.rules
    #expect(Self.usual.issues.isEmpty && rules.map(\.replacement) == ["[redacted]", "[key]", "[card number]"])
    let text = "Write to ada@example.org, key sk-abcdefghijklmnopqrstuvwx, card 4111 1111 1111 1111."
    let expected = "Write to [redacted], key [key], card [card number]."
    #expect(try redactComplete(rules, text) == expected)
    #expect(try redactByDelta(rules, text.map(String.init)).joined() == expected)
    // A word can be the beginning of an address until a character that cannot be part of one follows.
    #expect(try redactByDelta(rules, ["ada", "@", "x", ".org", " and"]) == ["", "", "", "", "[redacted] ", "and"])
    #expect(try redactByDelta(rules, ["word", " next"]) == ["", "word ", "next"])
    #expect(try redactByDelta(rules, ["!?!?", " ..."])[0] == "!?!?")
  }

  @Test("Redacted text does not depend on how it is split, for random texts and patterns", arguments: 0..<300)
  func everyCut(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let all = [
      "ab+c", "a(?:b|bc)d?", "(?<=x)a+", "a(?=b)", "\\bab\\b", "^a", "c$", "[^a]{2,4}b", "a.?b", "(?s)a.{0,3}c", "é+",
      "🎧.",
      "(a|b)\\1", "(?i)AB", "a*b", "(?<!a)b", "x{2,}", "a++b", "(?m)^b", "\\x{1F3A7}\\d", "\\s+a", "ba?$",
    ]
    var rules: [RedactionRules.Rule] = []
    for index in 0..<Int.random(in: 1...3, using: &random) {
      let text = all.randomElement(using: &random) ?? "a"
      rules.append(
        RedactionRules.Rule(name: text, pattern: try Pattern(text), replacement: ["", "#", "<\(index)>"][index]))
    }
    let alphabet = ["a", "b", "c", "x", "A", "B", "é", "🎧", " ", "\n", "1", "d"]
    let text = (0..<Int.random(in: 0...60, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? "a" }
    let expected = try redactComplete(rules, text.joined())
    for _ in 0..<5 {
      var cut: [String] = []
      var rest = text[...]
      while !rest.isEmpty {
        let count = Int.random(in: 1...min(rest.count, 6), using: &random)
        cut.append(rest.prefix(count).joined())
        rest = rest.dropFirst(count)
      }
      let found = try redactByDelta(rules, cut).joined()
      #expect(found == expected, "seed \(seed), \(rules.map(\.name)), \(cut)")
    }
  }

  @Test("An unusable rule is reported with its line and the reason")
  func issues() {
    let found = RedactionRules(
      parsing: "a  (b\n\n# c\nonly\nd  x*\ne  a\\Kb\nf  (*COMMIT)a\ng  a  b  c\r\nh  [a-\nok  a b  c d")
    #expect(found.issues.map(\.line) == [1, 4, 5, 6, 7, 8, 9])
    #expect(found.issues[0].reason.contains("missing closing parenthesis"))
    #expect(found.issues[2].reason.contains("empty"))
    #expect(found.rules.map(\.replacement) == ["c d"])
  }

  @Test("A pattern that withholds or backtracks without bound fails")
  func bounds() throws {
    let endless = RedactionRules(parsing: "secret  (?s)BEGIN.*END").rules
    let redactor = Redactor(endless)
    #expect(try redactor.feed("a BEGIN ") == "a ")
    #expect(throws: Failure.self) {
      for _ in 0..<10_000 { _ = try redactor.feed("all of this is held back ") }
    }
    let slow = Redactor(RedactionRules(parsing: "slow  (?:a|aa)+\\d").rules)
    let failure = #expect(throws: Failure.self) { try slow.feed(String(repeating: "a", count: 30) + "! ") }
    #expect(failure?.detail?.contains("match limit exceeded") == true, "\(String(describing: failure))")
  }

  @Test("A redactor that has failed returns no more text")
  func failed() throws {
    let redactor = Redactor(RedactionRules(parsing: "secret  BEGIN[^!]{0,20000}END").rules)
    _ = try redactor.feed("BEGIN" + String(repeating: "x", count: 16_300))
    let failure = try #require(throws: Failure.self) { try redactor.feed(String(repeating: "x", count: 100)) }
    #expect(throws: failure) { try redactor.feed(" END") }
    #expect(throws: failure) { try redactor.finish() as String }
  }

  @Test("A text with many matches is scanned once per pattern, not once per match")
  func manyMatches() throws {
    let redactor = Redactor(Self.usual.rules)
    let output = try redactor.feed(String(repeating: "1-", count: 200_000)) + redactor.finish()
    #expect(output.contains("[card number]") && !output.contains("1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1-1"))
  }

  @Test("Nested lookbehind assertions see all the text that they need")
  func nested() throws {
    let rules = RedactionRules(parsing: "n  (?<=(?<=(?<=(?<=(?<=a)b)c)d)[ ])secret").rules
    #expect(try redactByDelta(rules, ["abcd ", "secret", "."]).joined() == "abcd [redacted].")
  }

  @Test("A rules file can have a byte order mark and escaped characters, but must be UTF-8 and contain a rule")
  func fileForms() {
    #expect(RedactionRules(parsing: Array("\u{FEFF}# name  pattern\na  b\n".utf8)).rules.count == 1)
    #expect(RedactionRules(parsing: "a  \\(*x\nb  y\\\\Kz\n").issues.isEmpty)
    for empty in ["", "# nothing\n", "\n"] { #expect(RedactionRules(parsing: empty).issues.count == 1, "\(empty)") }
    #expect(RedactionRules(parsing: [0x61, 0x20, 0x20, 0xFC]).issues.first?.reason.contains("UTF-8") == true)
  }

  @Test("Only the context for lookbehind is retained of a long text")
  func memory() throws {
    let redactor = Redactor(Self.usual.rules)
    var count = 0
    for index in 0..<20_000 { count += try redactor.feed("word \(index % 10). ").utf8.count }
    count += try redactor.finish().utf8.count
    #expect(count == 20_000 * 8)
    #expect(redactor.bufferedBytes < 16 * 1024)
  }

  @Test("Redaction of JSON changes only names, strings and numbers")
  func json() throws {
    let json: JSON = [
      "4111111111111111": .integer(4_111_111_111_111_111),
      "a": ["x 4111111111111111", .literal("4.111111111111111e20")],
      "b": .bool(true), "c": .null, "d": .integer(7),
    ]
    let rules = RedactionRules(parsing: "card  4[.]?[0-9]{15}\n").rules
    #expect(
      try Redactor.redact(json, by: rules) == [
        "[redacted]": "[redacted]", "a": ["x [redacted]", "[redacted]e20"], "b": .bool(true), "c": .null,
        "d": .integer(7),
      ])
  }
}

extension Redactor {
  /// Feeds a delta that is given as a string, and returns its redacted text as one.
  func feed(_ text: String) throws(Failure) -> String {
    String(decoding: try feed(text.utf8Span.span), as: UTF8.self)
  }

  func finish() throws(Failure) -> String {
    let rest: [UInt8] = try finish()
    return String(decoding: rest, as: UTF8.self)
  }
}
