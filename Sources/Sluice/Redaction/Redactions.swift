import JSON

/// What is to be taken out of answers: the lines of a redaction file.
///
///     # name     pattern                                    replacement, [redacted] without
///     e-mail     [A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,64}
///     key        sk-[A-Za-z0-9]{20,60}                      [key]
///
/// The three are apart by a tab or by two or more spaces.
struct Redactions: Sendable {
  struct Rule: Sendable {
    let name: String
    let pattern: Pattern
    let replacement: String
  }

  private(set) var rules: [Rule] = []
  private(set) var mistakes: [LineMistake] = []

  init(parsing file: [UInt8]) {
    let text = String(validating: file, as: UTF8.self)
    self.init(parsing: text?.first == "\u{FEFF}" ? String(text?.dropFirst() ?? "") : text ?? "")
    if text == nil { mistakes = [LineMistake(line: 1, reason: "the file must be UTF-8")] }
  }

  init(parsing text: String) {
    for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
      let line = line.trimmed
      if line.isEmpty || line.first == "#" { continue }
      do throws(PatternError) { rules.append(try Self.rule(line)) } catch {
        mistakes.append(LineMistake(line: index + 1, reason: error.reason))
      }
    }
    // A file that was emptied by mistake must not let everything out.
    if rules.isEmpty, mistakes.isEmpty { mistakes = [LineMistake(line: 1, reason: "there is no pattern in the file")] }
  }

  private static func rule(_ line: Substring) throws(PatternError) -> Rule {
    let fields = fields(of: line)
    guard (2...3).contains(fields.count) else {
      throw PatternError(reason: "must be a name, a pattern and perhaps a replacement, apart by a tab or two spaces")
    }
    return Rule(
      name: fields[0], pattern: try Pattern(fields[1]), replacement: fields.count == 3 ? fields[2] : "[redacted]")
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

extension Services {
  /// The rules for what the model says at a request's location; none where it has no patterns.
  ///
  /// - Throws: when they cannot be used: nothing may go out unredacted.
  func redactionRules(for configuration: Configuration) async throws(Failure) -> [Redactions.Rule] {
    guard let path = configuration.redactFile else { return [] }
    let redactions = try await redactions.content(path, on: pool)
    if let mistake = redactions.mistakes.first {
      throw Failure.incompleteConfiguration("\(path) has a mistake in \(mistake)")
    }
    return redactions.rules
  }

  /// A redactor for one text, where the request's location has patterns.
  func redactor(for configuration: Configuration) async throws(Failure) -> Redactor? {
    let rules = try await redactionRules(for: configuration)
    return rules.isEmpty ? nil : Redactor(rules)
  }

  /// What was kept, by the rules of today. It may be large, so a thread of the pool does it.
  func redacted(_ replay: Replay, for configuration: Configuration) async throws(Failure) -> Replay {
    let rules = try await redactionRules(for: configuration)
    if rules.isEmpty { return replay }
    return try await pool.run { () throws(Failure) in
      var replay = replay
      replay.text = try Redactor.redact(replay.text, by: rules)
      var more = replay.finish.extraMembers
      more["report"] = try more["report"].map { (report) throws(Failure) in try Redactor.redact(report, by: rules) }
      replay.finish = replay.finish.with(extraMembers: more)
      return replay
    }
  }
}

extension Redactor {
  /// Every string in `json`, names included, redacted as a whole text of its own: what an escape hid in the text of a
  /// report is plain there. A number that matches becomes a string.
  static func redact(_ json: JSON, by rules: [Redactions.Rule]) throws(Failure) -> JSON {
    if rules.isEmpty { return json }
    switch json {
    case .string(let text): return .string(try redact(text, by: rules))
    case .array(let values):
      return .array(try values.map { (value) throws(Failure) in try redact(value, by: rules) })
    case .object(let members):
      return .object(
        JSON.Members(
          try members.all.map { (member) throws(Failure) in
            JSON.Members.Member(
              name: try redact(member.name, by: rules), value: try redact(member.value, by: rules))
          }))
    case .integer, .number, .literal:
      let text = String(decoding: json.encoded, as: UTF8.self)
      let redacted = try redact(text, by: rules)
      return redacted == text ? json : .string(redacted)
    case .null, .bool: return json
    }
  }
}
