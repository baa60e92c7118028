import JSON
import Upstream

/// Named events: `token`, `heartbeat`, and at the end `done`, `error` or `cancelled`.
struct EventsDialect: Dialect {
  static let name = "events"
  private static let tokenStart = Array("event: token\ndata: {\"t\":".utf8)

  init(_ stream: StreamMetadata) {}

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .started: break
    case .delta(let text): buffer.append(recordWith: text, after: Self.tokenStart, before: recordEnd)
    case .heartbeat: buffer.append(record: "heartbeat", [:])
    case .completed(let finish): buffer.append(record: "done", .object(done(finish)))
    case .failed(let failure): buffer.append(record: "error", failure.json)
    case .cancelled(let reason): buffer.append(record: "cancelled", ["reason": .string(reason)])
    }
  }

  private func done(_ finish: GenerationResult) -> JSON.Members {
    var members: JSON.Members = [:]
    members["messageId"] = finish.messageID.map(JSON.string)
    members["sessionId"] = finish.sessionID.map(JSON.string)
    members["finishReason"] = .string(finish.completion.finishReason.rawValue)
    members["usage"] = finish.completion.usage?.json
    members.merge(finish.extraMembers)
    return members
  }
}

extension Usage {
  /// In the names that OpenAI gives.
  var json: JSON {
    [
      "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
      "total_tokens": .integer(totalTokens),
    ]
  }

  init?(json: JSON) {
    guard let prompt = json["prompt_tokens"]?.integer, let completion = json["completion_tokens"]?.integer,
      let total = json["total_tokens"]?.integer
    else { return nil }
    self.init(promptTokens: prompt, completionTokens: completion, totalTokens: total)
  }
}
