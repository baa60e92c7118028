import JSON

/// The rules by which responses are redacted: the lines of a redaction file.
///
///     # name     pattern                                    replacement (default: [redacted])
///     e-mail     [A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,64}
///     key        sk-[A-Za-z0-9]{20,60}                      [key]
///
/// Fields are separated by a tab or by two or more spaces.
struct RedactionRules: Sendable {
  struct Rule: Sendable {
    let name: String
    let pattern: Pattern
    let replacement: String
    /// Counts the redactions.
    var count = RedactionCounts.Count()
  }

  private(set) var rules: [Rule] = []
  private(set) var issues: [LineIssue] = []

  /// - Parameter counts: receives the redactions of the rules.
  init(parsing file: [UInt8], _ counts: RedactionCounts = RedactionCounts()) {
    let text = String(validating: file, as: UTF8.self)
    self.init(parsing: text?.first == "\u{FEFF}" ? String(text?.dropFirst() ?? "") : text ?? "", counts)
    if text == nil { issues = [LineIssue(line: 1, reason: "the file must be UTF-8")] }
  }

  init(parsing text: String, _ counts: RedactionCounts = RedactionCounts()) {
    for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
      let line = line.trimmed
      if line.isEmpty || line.first == "#" { continue }
      do throws(PatternError) { rules.append(try Self.rule(line, counts)) } catch {
        issues.append(LineIssue(line: index + 1, reason: error.reason))
      }
    }
    // A file that was emptied by accident must not disable redaction.
    if rules.isEmpty, issues.isEmpty { issues = [LineIssue(line: 1, reason: "the file contains no pattern")] }
  }

  private static func rule(_ line: Substring, _ counts: RedactionCounts) throws(PatternError) -> Rule {
    let fields = fields(of: line)
    guard (2...3).contains(fields.count) else {
      throw PatternError(reason: "must be NAME, PATTERN and an optional REPLACEMENT, separated by a tab or two spaces")
    }
    return Rule(
      name: fields[0], pattern: try Pattern(fields[1]), replacement: fields.count == 3 ? fields[2] : "[redacted]",
      count: counts.count(of: fields[0]))
  }

  private static func fields(of line: Substring) -> [String] {
    var fields: [String] = [""]
    var rest = line
    while let character = rest.popFirst() {
      if character == "\t" || (character == " " && rest.first?.isWhitespace == true) {
        rest = rest.drop { $0 == " " || $0 == "\t" }
        fields.append("")
      } else {
        fields[fields.count - 1].append(character)
      }
    }
    return fields
  }
}
