import EventStream
import Upstream

/// Named events: `token`, `heartbeat`, and at the end `done`, `error` or `cancelled`.
struct EventsDialect: Dialect {
  static let name = "events"

  private static let tokenStart = Array("event: token\ndata: {\"t\":".utf8)

  init(streamID: String) {}

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .began: break
    case .delta(let text):
      buffer.append(contentsOf: Self.tokenStart)
      buffer.append(jsonString: text)
      buffer.append(UInt8(ascii: "}"))
      EventStreamEncoder.endLine(&buffer)
    case .heartbeat: append("heartbeat", [:], to: &buffer)
    case .finished(let finish): append("done", finish.json, to: &buffer)
    case .failed(let failure): append("error", failure.json, to: &buffer)
    case .cancelled(let reason): append("cancelled", ["reason": .string(reason)], to: &buffer)
    }
  }

  private func append(_ event: StaticString, _ data: JSON, to buffer: inout [UInt8]) {
    EventStreamEncoder.beginLine(event: event, into: &buffer)
    buffer.append(json: data)
    EventStreamEncoder.endLine(&buffer)
  }
}

extension Finish {
  fileprivate var json: JSON {
    var members: JSON.Members = [:]
    members["messageId"] = messageID.map(JSON.string)
    members["sessionId"] = sessionID.map(JSON.string)
    members["finishReason"] = .string(completion.finishReason.rawValue)
    members["usage"] = completion.usage?.json
    for member in more.all { members[member.name] = member.value }
    return .object(members)
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
}
