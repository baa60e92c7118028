import JSON

extension OutputChunk {
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
}

extension OutputChunk.Choice {
  /// The members of a delta that can contain reasoning. Some servers send it under two names; it is the same then.
  package static let reasoningNames = ["reasoning_content", "reasoning", "reasoning_text", "thinking"]

  fileprivate static let reasoningDetails = "reasoning_details"

  static func isReasoning(_ name: String) -> Bool { reasoningNames.contains(name) || name == reasoningDetails }

  /// The text that is added: `content`, which can be an array of parts.
  package var text: String {
    switch delta["content"] {
    case .string(let text)?: text
    case .array(let parts)?: parts.compactMap { $0.string ?? $0["text"]?.string }.joined()
    default: ""
    }
  }

  /// Removes the text, and keeps what an array of parts has besides.
  mutating func removeText() {
    let (content, thoughts) = (delta["content"]?.array ?? [], reasoning)
    let others = content.filter { $0.string == nil && $0["text"] == nil && $0["thinking"] == nil }
    delta["content"] = others.isEmpty ? nil : .array(others)
    // Mistral's models reason in parts of the content.
    if content.contains(where: { $0["thinking"] != nil }) { delta["reasoning_content"] = .string(thoughts) }
  }

  /// The reasoning that is added.
  package var reasoning: String {
    for name in Self.reasoningNames + [Self.reasoningDetails] {
      let text = delta[name].map(Self.text) ?? ""
      if !text.isEmpty { return text }
    }
    return (delta["content"]?.array ?? []).compactMap { $0["thinking"].map(Self.text) }.joined()
  }

  package var refusal: String {
    let inContent = (delta["content"]?.array ?? []).compactMap { $0["refusal"].map(Self.text) }.joined()
    return (delta["refusal"].map(Self.text) ?? "") + inContent
  }

  /// Returns the text of a value that should be a string, but can be an object or an array of parts.
  private static func text(_ json: JSON) -> String {
    switch json {
    case .string(let text): text
    case .array(let parts): parts.map(text).joined()
    case .object(let members):
      ["text", "content", "summary"].lazy.compactMap { members[$0]?.string }.first ?? ""
    default: ""
    }
  }

  /// The calls of tools, in their order.
  package var toolCalls: [ToolCall] {
    let elements = (delta["tool_calls"]?.array ?? []).filter { $0.object != nil }
    var calls = elements.enumerated().map { ToolCall($1, place: $0) }
    // The form that preceded `tool_calls`. No response has both.
    if calls.isEmpty, let call = delta["function_call"] { calls.append(ToolCall(["function": call], place: 0)) }
    return calls
  }

  package var parts: [OutputPart] {
    var parts: [OutputPart] = []
    let (reasoning, refusal) = (reasoning, refusal)
    if !reasoning.isEmpty { parts.append(.reasoning(reasoning)) }
    if !refusal.isEmpty { parts.append(.refusal(refusal)) }
    parts += toolCalls.map(OutputPart.toolCall)
    for annotation in delta["annotations"]?.array ?? [] {
      guard let citation = annotation["url_citation"], let url = citation["url"]?.string else { continue }
      parts.append(.source(url: url, title: citation["title"]?.string))
    }
    return parts
  }

  /// The members of the complete message that all deltas together make, without its role and text.
  package var message: JSON.Members {
    var message: JSON.Members = [:]
    for member in delta.all where member.name != "content" && member.name != "role" {
      message[member.name] =
        member.name == "tool_calls" ? member.value.array.map { .array($0.map(Self.complete)) } : member.value
    }
    return message
  }

  /// Returns a complete call, which has no index, but an id and a type: the API requires them when the message is sent
  /// back.
  private static func complete(_ call: JSON) -> JSON {
    guard case .object(let delta) = call else { return call }
    var members = JSON.Members(delta.all.filter { $0.name != "index" })
    if members["id"] == nil { members["id"] = .string(ToolCall(call, place: 0).fallbackID) }
    if members["type"] == nil { members["type"] = "function" }
    return .object(members)
  }
}

extension ToolCall {
  /// - Parameter place: the index if the object has none.
  fileprivate init(_ json: JSON, place: Int) {
    // A tool of the type `custom` takes text.
    let (function, custom) = (json["function"], json["custom"])
    self.init(
      index: json["index"]?.integer ?? place, id: json["id"]?.string,
      name: function?["name"]?.string ?? custom?["name"]?.string,
      arguments: Self.text(ofArguments: function?["arguments"] ?? custom?["input"]))
  }

  /// Some servers send the arguments as an object instead of its text.
  private static func text(ofArguments json: JSON?) -> String {
    switch json {
    case nil, .null?: ""
    case .string(let text)?: text
    case let json?: String(decoding: json.encoded, as: UTF8.self)
    }
  }

  /// The id of a call whose server gives none.
  package var fallbackID: String { "call_\(index)" }

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
