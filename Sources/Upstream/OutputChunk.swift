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
  }

  package var choices: [Choice]

  package init(_ choices: [Choice] = []) { self.choices = choices }

  /// Creates the chunk of a part, which belongs to the first choice.
  package init(_ part: OutputPart) {
    var delta: JSON.Members = [:]
    switch part {
    case .reasoning(let text): delta["reasoning_content"] = .string(text)
    case .refusal(let text): delta["refusal"] = .string(text)
    case .toolCall(let call): delta["tool_calls"] = [call.json]
    case .source(let url, let title):
      var citation: JSON.Members = ["url": .string(url)]
      citation["title"] = title.map(JSON.string)
      delta["annotations"] = [["type": "url_citation", "url_citation": .object(citation)]]
    }
    self.init([Choice(index: 0, delta: delta)])
  }

  package var isEmpty: Bool { choices.isEmpty }

  /// The first choice, if the chunk adds to it.
  package var first: Choice? { choices.first { $0.index == 0 } }

  /// The text that the chunk adds to the first choice.
  package var text: String { first?.text ?? "" }

  /// The parts that the chunk adds to the first choice beside text, in the order in which a reader expects them.
  package var parts: [OutputPart] { first?.parts ?? [] }

  /// The chunk without the text of the first choice.
  package var withoutText: OutputChunk {
    OutputChunk(
      choices.compactMap { choice in
        var choice = choice
        if choice.index == 0 {
          let thoughts = choice.delta["content"]?.array == nil ? "" : choice.reasoning
          choice.delta["content"] = nil
          if !thoughts.isEmpty { choice.delta["reasoning_content"] = .string(thoughts) }
        }
        return choice.delta.all.isEmpty && choice.members.all.isEmpty ? nil : choice
      })
  }

  /// The chunk without reasoning.
  package var withoutReasoning: OutputChunk {
    OutputChunk(
      choices.compactMap { choice in
        var choice = choice
        choice.delta = JSON.Members(choice.delta.all.filter { !$0.name.hasPrefix("reasoning") })
        return choice.delta.all.isEmpty && choice.members.all.isEmpty ? nil : choice
      })
  }

  /// The calls of tools and the refusal of the first choice only.
  package var callsAndRefusal: OutputChunk {
    guard let first else { return OutputChunk() }
    let names = ["tool_calls", "function_call", "refusal"]
    let kept = JSON.Members(first.delta.all.filter { names.contains($0.name) })
    return OutputChunk(kept.all.isEmpty ? [] : [Choice(index: 0, delta: kept)])
  }

  /// The size of what the chunk adds to the messages, in bytes: the text of all kinds.
  package var textBytes: Int { choices.reduce(0) { $0 + JSON.object($1.delta).textBytes } }

  /// The approximate size of the chunk as JSON, in bytes.
  package var byteCount: Int {
    choices.reduce(0) { $0 + JSON.object($1.delta).byteCount + JSON.object($1.members).byteCount + 64 }
  }
}

extension OutputChunk.Choice {
  /// The members of a delta that can contain reasoning. Some servers send it under two names; it is the same then.
  package static let reasoningNames = ["reasoning_content", "reasoning", "reasoning_text"]

  /// The text that is added: `content`, which can be an array of parts.
  package var text: String {
    switch delta["content"] {
    case .string(let text)?: text
    case .array(let parts)?: parts.compactMap { $0["text"]?.string }.joined()
    default: ""
    }
  }

  /// The reasoning that is added.
  package var reasoning: String {
    for name in Self.reasoningNames {
      if let text = delta[name]?.string, !text.isEmpty { return text }
    }
    // Mistral's models reason in parts of the content.
    return (delta["content"]?.array ?? []).compactMap { part -> String? in
      switch part["thinking"] {
      case .string(let text)?: text
      case .array(let thoughts)?: thoughts.compactMap { $0["text"]?.string }.joined()
      default: nil
      }
    }.joined()
  }

  /// The members of the complete message that all deltas together make, without its role and text.
  package var message: JSON.Members {
    var message: JSON.Members = [:]
    for member in delta.all where member.name != "content" && member.name != "role" {
      message[member.name] = member.value
      guard member.name == "tool_calls", let calls = member.value.array else { continue }
      // Only deltas have an index.
      message[member.name] = .array(
        calls.map { call in
          call.object.map { .object(JSON.Members($0.all.filter { $0.name != "index" })) } ?? call
        })
    }
    return message
  }

  package var refusal: String { delta["refusal"]?.string ?? "" }

  /// The calls of tools, in their order.
  package var toolCalls: [ToolCall] {
    let elements = (delta["tool_calls"]?.array ?? []).filter { $0.object != nil }
    var calls = elements.enumerated().map { ToolCall($1, place: $0) }
    // The form that preceded `tool_calls`.
    if let call = delta["function_call"] { calls.append(ToolCall(["function": call], place: calls.count)) }
    return calls
  }

  package var parts: [OutputPart] {
    var parts: [OutputPart] = []
    if !reasoning.isEmpty { parts.append(.reasoning(reasoning)) }
    if !refusal.isEmpty { parts.append(.refusal(refusal)) }
    parts += toolCalls.map(OutputPart.toolCall)
    for annotation in delta["annotations"]?.array ?? [] {
      guard let citation = annotation["url_citation"], let url = citation["url"]?.string else { continue }
      parts.append(.source(url: url, title: citation["title"]?.string))
    }
    return parts
  }
}

extension ToolCall {
  /// - Parameter place: the index if the object has none.
  fileprivate init(_ json: JSON, place: Int) {
    let function = json["function"]
    self.init(
      index: json["index"]?.integer ?? place, id: json["id"]?.string, name: function?["name"]?.string,
      arguments: Self.text(ofArguments: function?["arguments"]))
  }

  /// Some servers send the arguments as an object instead of its text.
  private static func text(ofArguments json: JSON?) -> String {
    switch json {
    case nil, .null?: ""
    case .string(let text)?: text
    case let json?: String(decoding: json.encoded, as: UTF8.self)
    }
  }

  /// The element of `tool_calls`.
  fileprivate var json: JSON {
    var members: JSON.Members = ["index": .integer(index)]
    members["id"] = id.map(JSON.string)
    members["type"] = id == nil ? nil : "function"
    var function: JSON.Members = [:]
    function["name"] = name.map(JSON.string)
    function["arguments"] = .string(arguments)
    members["function"] = .object(function)
    return .object(members)
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
  fileprivate var byteCount: Int {
    switch self {
    case .string(let text), .literal(let text): text.utf8.count + 2
    case .array(let values): values.reduce(2) { $0 + $1.byteCount + 1 }
    case .object(let members): members.all.reduce(2) { $0 + $1.name.utf8.count + $1.value.byteCount + 4 }
    default: 8
    }
  }
}
