import JSON

extension OutputChunk {
  /// Appends what `other` adds. Strings grow, array elements with an `index` are joined with those of the same index,
  /// and other elements are appended, as OpenAI's clients do it.
  package mutating func join(_ other: OutputChunk) {
    for choice in other.choices {
      let place =
        choices.firstIndex { $0.index == choice.index }
        ?? {
          choices.append(Choice(index: choice.index))
          return choices.count - 1
        }()
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
      case nil, .null?:
        // An array can have several elements of one index.
        self[member.name] = member.value.array == nil ? member.value : []
        if member.value.array != nil { update(member.name) { $0.join(member.value) } }
      // Some servers repeat a name in every delta.
      case member.value? where member.name == "name": break
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
  /// The number of the last elements among which one with the same index is searched.
  private static let maximumSearched = 1024

  fileprivate mutating func join(_ other: JSON) {
    // Taken out, so that what grows is not shared and therefore not copied.
    switch (exchange(&self, with: .null), other) {
    case (.string(var text), .string(let rest)):
      text += rest
      self = .string(text)
    case (.object(var members), .object(let rest)):
      members.join(rest)
      self = .object(members)
    case (.array(var elements), .array(let rest)):
      for element in rest { Self.join(element, to: &elements) }
      self = .array(elements)
    case (let own, .null): self = own
    default: self = other
    }
  }

  private static func join(_ element: JSON, to elements: inout [JSON]) {
    let index = element["index"]?.integer
    let place = index.flatMap { index in
      elements.suffix(maximumSearched).lastIndex { $0["index"]?.integer == index }
    }
    if let place { elements[place].join(element) } else { elements.append(element) }
  }
}
