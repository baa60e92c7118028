import JSON

extension Redactor {
  /// Every string in `json`, names included, redacted as a whole text of its own: what an escape hid in the text of a
  /// report is plain there. A number that matches becomes a string.
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
