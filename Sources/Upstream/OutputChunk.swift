import JSON

/// A delta of a model's output that is more than text: the choices of a `chat.completion.chunk` of OpenAI's API.
///
/// Chunks can be joined: the result says what they say one after another.
package struct OutputChunk: Sendable, Equatable {
  /// One of several responses to the same prompt. There is rarely more than the first, which has index 0.
  package struct Choice: Sendable, Equatable {
    package var index: Int
    /// The members that are added to the message: `content`, `reasoning_content`, `refusal`, `tool_calls` and so on.
    package var delta: JSON.Members
    /// The members beside the delta, such as `logprobs`. The finish reason of the first choice is not one of them: a
    /// ``Completion`` has it.
    package var members: JSON.Members

    package init(index: Int, delta: JSON.Members = [:], members: JSON.Members = [:]) {
      self.index = index
      self.delta = delta
      self.members = members
    }

    package var isEmpty: Bool { delta.all.isEmpty && members.all.isEmpty }
  }

  package var choices: [Choice]

  package init(_ choices: [Choice] = []) { self.choices = choices }

  package var isEmpty: Bool { choices.isEmpty }

  /// The first choice, if the chunk adds to it.
  package var first: Choice? { choices.first { $0.index == 0 } }

  /// The text that the chunk adds to the first choice.
  package var text: String { first?.text ?? "" }

  /// The parts that the chunk adds to the first choice beside text, in the order in which a reader expects them.
  package var parts: [OutputPart] { first?.parts ?? [] }

  // MARK: Parts of a chunk

  /// Returns the chunk with the members of its deltas for which `isIncluded` returns true.
  ///
  /// - Parameter hasMembers: whether the members beside the deltas are included too.
  private func filter(hasMembers: Bool = true, _ isIncluded: (String) -> Bool) -> OutputChunk {
    OutputChunk(
      choices.compactMap { choice in
        var choice = choice
        choice.delta = JSON.Members(choice.delta.all.filter { isIncluded($0.name) })
        if !hasMembers { choice.members = [:] }
        return choice.isEmpty ? nil : choice
      })
  }

  /// The chunk without the text of the first choice.
  package var withoutText: OutputChunk {
    OutputChunk(
      choices.compactMap { choice in
        var choice = choice
        if choice.index == 0 { choice.removeText() }
        return choice.isEmpty ? nil : choice
      })
  }

  /// The chunk without reasoning.
  package var withoutReasoning: OutputChunk { filter { !Choice.isReasoning($0) } }

  /// The reasoning of the chunk, and nothing else.
  package var onlyReasoning: OutputChunk { filter(hasMembers: false, Choice.isReasoning) }

  /// The calls of tools and the refusal of the first choice only.
  package var callsAndRefusal: OutputChunk {
    guard let first else { return OutputChunk() }
    return OutputChunk([first]).filter(hasMembers: false) { ["tool_calls", "function_call", "refusal"].contains($0) }
  }

  // MARK: Sizes

  /// The size of what the chunk adds to the messages, in bytes: the text of all kinds.
  package var textBytes: Int { choices.reduce(0) { $0 + JSON.object($1.delta).textBytes } }

  /// The approximate size of the chunk as JSON, in bytes.
  package var byteCount: Int {
    choices.reduce(0) { $0 + JSON.object($1.delta).byteCount + JSON.object($1.members).byteCount + 64 }
  }

  /// The approximate number of bytes by which a chunk grows that this one is joined to: its text, and the size of what
  /// is appended to arrays.
  package var joinedBytes: Int {
    choices.reduce(0) { bytes, choice in
      let delta = choice.delta.all.reduce(0) { bytes, member in
        let isJoined = member.name == "tool_calls" || member.value.array == nil
        return bytes + (isJoined ? member.value.textBytes : member.value.byteCount)
      }
      return bytes + delta + (choice.members.all.isEmpty ? 0 : JSON.object(choice.members).byteCount)
    }
  }
}

extension JSON {
  /// The size of all strings, without the names of members.
  fileprivate var textBytes: Int {
    switch self {
    case .string(let text): text.utf8.count
    case .array(let values): values.reduce(0) { $0 + $1.textBytes }
    case .object(let members): members.all.reduce(0) { $0 + $1.value.textBytes }
    default: 0
    }
  }

  /// The approximate size as JSON.
  var byteCount: Int {
    switch self {
    case .string(let text), .literal(let text): text.utf8.count + 2
    case .array(let values): values.reduce(2) { $0 + $1.byteCount + 1 }
    case .object(let members): members.all.reduce(2) { $0 + $1.name.utf8.count + $1.value.byteCount + 4 }
    default: 8
    }
  }
}
