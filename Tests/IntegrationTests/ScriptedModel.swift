import JSON
import SluiceTesting

extension ScriptedUpstream {
  /// Starts a model server that answers as models do: it calls each tool of a request once, with arguments that fit the
  /// schema, then says the last result; it fills the schema of a response format; it describes images, and reasons.
  static func model() throws -> ScriptedUpstream {
    try ScriptedUpstream { exchange in
      guard let request = try? JSON(parsing: Array(exchange.request.body.utf8)) else {
        return exchange.respond("400 Bad Request", #"{"error":{"message":"no JSON"}}"#)
      }
      let answer = ModelAnswer(to: request)
      if request["stream"]?.bool == true {
        exchange.sendHead()
        for chunk in answer.chunks { exchange.send("data: \(String(decoding: chunk.encoded, as: UTF8.self))\n\n") }
        exchange.sendDone()
      } else {
        exchange.respond("501 Not Implemented", #"{"error":{"message":"only streams"}}"#)
      }
    }
  }
}

/// One answer of a scripted model, as chunks.
private struct ModelAnswer {
  private let request: JSON
  private(set) var chunks: [JSON] = []

  init(to request: JSON) {
    self.request = request
    let messages = request["messages"]?.array ?? []
    let called = messages.flatMap { $0["tool_calls"]?.array ?? [] }.compactMap { $0["function"]?["name"]?.string }
    let tools = (request["tools"]?.array ?? []).compactMap { $0["function"] }
    let tool = tools.first { !called.contains($0["name"]?.string ?? "") }
    for index in 0..<(request["n"]?.integer ?? 1) {
      append(["role": "assistant", "content": ""], to: index)
      if let tool {
        append(["reasoning_content": "Let me "], to: index)
        append(["reasoning_content": "see."], to: index)
        call(tool, number: called.count, in: index)
      } else if messages.last?["content"] == "refuse" {
        for piece in ["I ", "cannot."] { append(["refusal": .string(piece)], to: index) }
        append([:], to: index, finish: "stop")
      } else {
        say(text(after: messages.last, index: index), in: index)
      }
    }
    chunks.append(
      chunk(
        [],
        [
          "usage": [
            "prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
            "completion_tokens_details": ["reasoning_tokens": 3],
          ]
        ]))
  }

  private mutating func call(_ tool: JSON, number: Int, in index: Int) {
    let text = String(decoding: Self.value(of: tool["parameters"] ?? [:]).encoded, as: UTF8.self)
    let start: JSON = [
      "index": 0, "id": .string("call_\(number)"), "type": "function",
      "function": ["name": tool["name"] ?? "", "arguments": ""],
    ]
    append(["tool_calls": [start]], to: index)
    for piece in Self.pieces(text) {
      append(["tool_calls": [["index": 0, "function": ["arguments": .string(piece)]]]], to: index)
    }
    append([:], to: index, finish: "tool_calls")
  }

  private mutating func say(_ text: String, in index: Int) {
    for piece in Self.pieces(text) {
      var more: JSON.Members = [:]
      if request["logprobs"] == .bool(true) {
        let entry: JSON.Members = ["token": .string(piece), "logprob": -1, "bytes": .null]
        var token = entry
        token["top_logprobs"] = [.object(entry)]
        more["logprobs"] = ["content": [.object(token)], "refusal": .null]
      }
      append(["content": .string(piece)], to: index, more: more)
    }
    append([:], to: index, finish: "stop")
  }

  private func text(after message: JSON?, index: Int) -> String {
    if let schema = request["response_format"]?["json_schema"]?["schema"] {
      return String(decoding: Self.value(of: schema).encoded, as: UTF8.self)
    }
    let content = message?["content"] ?? ""
    if message?["role"] == "tool" { return "The tool said: \(content.string ?? "")" }
    let image = content.array?.compactMap { $0["image_url"]?["url"]?.string }.first
    if let image { return "I see an image of \(image.utf8.count) bytes." }
    return request["n"] == nil ? content.string ?? "" : "\(index): \(content.string ?? "")"
  }

  /// Returns a value that fits a JSON Schema.
  private static func value(of schema: JSON) -> JSON {
    switch schema["type"]?.string {
    case "object":
      return .object(
        JSON.Members(
          (schema["properties"]?.object?.all ?? []).map {
            JSON.Members.Member(name: $0.name, value: value(of: $0.value))
          }))
    case "integer": return 7
    case "boolean": return .bool(true)
    case "array": return .array([value(of: schema["items"] ?? [:])])
    default: return "Paris"
    }
  }

  private static func pieces(_ text: String) -> [String] {
    stride(from: 0, to: text.count, by: 3).map { String(text.dropFirst($0).prefix(3)) }
  }

  private mutating func append(
    _ delta: JSON.Members, to index: Int, finish: String? = nil, more: JSON.Members = [:]
  ) {
    var choice: JSON.Members = [
      "index": .integer(index), "delta": .object(delta), "finish_reason": finish.map(JSON.string) ?? .null,
    ]
    choice.merge(more)
    chunks.append(chunk([.object(choice)]))
  }

  private func chunk(_ choices: [JSON], _ more: JSON.Members = [:]) -> JSON {
    var members: JSON.Members = [
      "id": "chatcmpl-model", "object": "chat.completion.chunk", "created": 1, "model": request["model"] ?? "m",
      "choices": .array(choices),
    ]
    members.merge(more)
    return .object(members)
  }
}
