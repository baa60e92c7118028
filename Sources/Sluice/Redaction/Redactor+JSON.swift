import JSON

extension Redactor {
  /// Returns `json` with every string redacted, member names included. Each string is redacted as a separate, complete
  /// text, which reveals matches that JSON escapes hide in the text of a report. A matching number becomes a string.
  static func redact(_ json: JSON, by rules: [RedactionRules.Rule]) throws(Failure) -> JSON {
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
