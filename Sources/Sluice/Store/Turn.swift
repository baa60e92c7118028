import JSON
import Upstream

/// A finished turn of a conversation: what the user said and the whole answer. One line of a session's file.
struct Turn: Sendable, Equatable {
  struct Text: Sendable, Equatable {
    var content: String
  }

  /// The answer's message id (a UUIDv7).
  var id: String
  /// When the answer was complete (RFC 3339, UTC).
  var at: String
  var user: Text
  var assistant: Text
  var finishReason: String?
  var model: String?
  var usage: Usage?

  /// The line, with its end. The order of the members is fixed, for whoever reads it with `less`.
  var line: [UInt8] {
    var members: JSON.Members = [
      "v": .integer(1), "id": .string(id), "at": .string(at), "user": ["content": .string(user.content)],
      "assistant": ["content": .string(assistant.content)],
    ]
    members["finishReason"] = finishReason.map(JSON.string)
    members["model"] = model.map(JSON.string)
    members["usage"] = usage.map {
      [
        "promptTokens": .integer($0.promptTokens), "completionTokens": .integer($0.completionTokens),
        "totalTokens": .integer($0.totalTokens),
      ]
    }
    return JSON.object(members).encoded + [0x0A]
  }

  /// Nil when the line is not a whole turn: torn by a power cut, or not ours.
  init?(line: some Collection<UInt8>) {
    guard let json = try? JSON(parsing: Array(line)), let id = json["id"]?.string, let at = json["at"]?.string,
      let user = json["user"]?["content"]?.string, let assistant = json["assistant"]?["content"]?.string
    else { return nil }
    self.id = id
    self.at = at
    self.user = Text(content: user)
    self.assistant = Text(content: assistant)
    finishReason = json["finishReason"]?.string
    model = json["model"]?.string
    usage = json["usage"].flatMap { usage in
      guard let prompt = usage["promptTokens"]?.integer, let completion = usage["completionTokens"]?.integer,
        let total = usage["totalTokens"]?.integer
      else { return nil }
      return Usage(promptTokens: prompt, completionTokens: completion, totalTokens: total)
    }
  }

  init(id: String, at: String, user: String, assistant: String, completion: Completion, model: String?) {
    self.id = id
    self.at = at
    self.user = Text(content: user)
    self.assistant = Text(content: assistant)
    self.finishReason = completion.finishReason.rawValue
    self.model = model
    self.usage = completion.usage
  }
}
