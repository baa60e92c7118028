import JSON
import Upstream

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

  /// Returns a complete part of a message, redacted like ``redact(_:by:)``, except that `arguments` are JSON within a
  /// string: their values are redacted.
  static func redact(message json: JSON, by rules: [RedactionRules.Rule]) throws(Failure) -> JSON {
    switch json {
    case .array(let elements):
      return .array(try elements.map { (element) throws(Failure) in try redact(message: element, by: rules) })
    case .object(var members):
      for member in members.all {
        members[member.name] =
          if member.name == "arguments", let text = member.value.string {
            .string(try redact(arguments: text, by: rules))
          } else {
            try redact(message: member.value, by: rules)
          }
      }
      return .object(members)
    case .string(let text): return .string(try redact(text, by: rules))
    default: return json
    }
  }

  private static func redact(arguments text: String, by rules: [RedactionRules.Rule]) throws(Failure) -> String {
    guard let json = try? JSON(parsing: Array(text.utf8)) else { return try redact(text, by: rules) }
    let redacted = try redact(json, by: rules)
    return redacted == json ? text : String(decoding: redacted.encoded, as: UTF8.self)
  }
}

extension OutputChunk {
  /// Returns a complete response, redacted. Log probabilities, which have its text piece by piece, are dropped.
  func redacted(by rules: [RedactionRules.Rule]) throws(Failure) -> OutputChunk {
    OutputChunk(
      try choices.map { (choice) throws(Failure) in
        var choice = choice
        choice.delta = try Redactor.redact(message: .object(choice.delta), by: rules).object ?? [:]
        choice.members["logprobs"] = nil
        return choice
      })
  }
}
