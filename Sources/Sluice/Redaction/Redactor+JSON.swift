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

  /// Returns the members of a complete message, redacted. The `arguments` of a call are JSON within a string, whose
  /// values are redacted.
  static func redact(message members: JSON.Members, by rules: [RedactionRules.Rule]) throws(Failure) -> JSON.Members {
    if rules.isEmpty { return members }
    // Each member by itself, because several can have one name.
    return JSON.Members(
      try members.all.map { (member) throws(Failure) in
        JSON.Members.Member(name: member.name, value: try redact(member, by: rules))
      })
  }

  private static func redact(
    _ member: JSON.Members.Member, by rules: [RedactionRules.Rule]
  ) throws(Failure) -> JSON {
    switch (member.name, member.value) {
    case ("arguments", .string(let text)), ("input", .string(let text)):
      return .string(try redact(arguments: text, by: rules))
    case ("index", .integer): return member.value
    case ("tool_calls", .array(let calls)):
      return .array(
        try calls.map { (call) throws(Failure) -> JSON in
          guard let call = call.object else { return try redact(call, by: rules) }
          return .object(try redact(message: call, by: rules))
        })
    case ("function", .object(let call)), ("custom", .object(let call)), ("function_call", .object(let call)):
      return .object(try redact(message: call, by: rules))
    default: return try redact(member.value, by: rules)
    }
  }

  /// Returns JSON within a string, redacted: by its values and as text. Text that is no JSON, because it was cut, is
  /// redacted without its escapes if they hide a match.
  private static func redact(arguments text: String, by rules: [RedactionRules.Rule]) throws(Failure) -> String {
    // In an array, because a value can be a string too.
    if let json = (try? JSON(parsing: Array("[\(text)]".utf8)))?.array?.first {
      let redacted = try redact(json, by: rules)
      return redacted == json ? try redact(text, by: rules) : String(decoding: redacted.encoded, as: UTF8.self)
    }
    let redacted = try redact(text, by: rules)
    let unescaped = redacted.withoutEscapes
    let again = try redact(unescaped, by: rules)
    return again == unescaped ? redacted : again
  }
}

extension String {
  /// The text with JSON's escapes replaced by what they stand for (RFC 8259, 7).
  fileprivate var withoutEscapes: String {
    var units: [UInt16] = []
    var rest = Array(utf16)[...]
    let simple: [UInt16: UInt16] = [0x62: 0x08, 0x66: 0x0C, 0x6E: 0x0A, 0x72: 0x0D, 0x74: 0x09]
    while let unit = rest.popFirst() {
      guard unit == 0x5C, let escaped = rest.popFirst() else {
        units.append(unit)
        continue
      }
      let digits = String(decoding: rest.prefix(4), as: UTF16.self)
      if escaped == 0x75, digits.utf8.count == 4, let code = UInt16(digits, radix: 16) {
        units.append(code)
        rest = rest.dropFirst(4)
      } else {
        units.append(simple[escaped] ?? escaped)
      }
    }
    return String(decoding: units, as: UTF16.self)
  }
}
