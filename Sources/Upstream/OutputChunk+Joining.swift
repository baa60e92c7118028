import JSON

extension OutputChunk {
  /// Appends what `other` adds. Strings grow, array elements with an `index` are joined with those of the same index,
  /// and other elements are appended, as OpenAI's clients do it.
  package mutating func join(_ other: OutputChunk) {
    for choice in other.choices {
      guard let place = choices.firstIndex(where: { $0.index == choice.index }) else {
        choices.append(choice)
        continue
      }
      choices[place].delta.join(choice.delta)
      for member in choice.members.all {
        if member.name == "logprobs" {
          choices[place].members.join([member.name: member.value])
        } else {
          choices[place].members[member.name] = member.value
        }
      }
    }
  }
}

extension JSON.Members {
  /// The members that name something, and do not grow.
  private static let names: Set = ["id", "index", "type", "role", "format", "signature"]

  fileprivate mutating func join(_ other: JSON.Members) {
    for member in other.all {
      switch self[member.name] {
      case nil, .null?: self[member.name] = member.value
      default:
        if Self.names.contains(member.name) {
          if member.value != .string("") { self[member.name] = member.value }
        } else {
          update(member.name) { $0.join(member.value) }
        }
      }
    }
  }
}

extension JSON {
  fileprivate mutating func join(_ other: JSON) {
    switch (self, other) {
    case (.string(var text), .string(let rest)):
      // Not shared while it grows, so it is not copied.
      self = .null
      text += rest
      self = .string(text)
    case (.object(var members), .object(let rest)):
      self = .null
      members.join(rest)
      self = .object(members)
    case (.array(var elements), .array(let rest)):
      self = .null
      for element in rest { Self.join(element, to: &elements) }
      self = .array(elements)
    case (_, .null): break
    default: self = other
    }
  }

  private static func join(_ element: JSON, to elements: inout [JSON]) {
    if let index = element["index"]?.integer, let place = elements.firstIndex(where: { $0["index"]?.integer == index })
    {
      elements[place].join(element)
    } else {
      elements.append(element)
    }
  }
}
