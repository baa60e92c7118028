import JSON
import Upstream

/// Named events: `token`, `reasoning`, `tool_call`, `source` and `heartbeat`, then one of `done`, `error` and `cancelled`.
struct EventsDialect: Dialect {
  static let name = "events"
  private static let token = RecordTemplate(event: "token", #"{"t":"#, "}")
  private static let refusal = RecordTemplate(event: "token", #"{"t":"#, #","refusal":true}"#)
  private static let reasoning = RecordTemplate(event: "reasoning", #"{"t":"#, "}")

  init(_ stream: StreamMetadata) {}

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    records.append(Self.token, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: break
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .part(.reasoning(let text)): records.append(Self.reasoning, text)
    case .part(.refusal(let text)): records.append(Self.refusal, text)
    case .part(.toolCall(let call)): records.append(event: "tool_call", call.deltaJSON)
    case .part(.source(let url, let title)):
      var members: JSON.Members = ["url": .string(url)]
      members["title"] = title.map(JSON.string)
      records.append(event: "source", .object(members))
    case .heartbeat: records.append(event: "heartbeat", [:])
    case .completed(let result): records.append(event: "done", .object(done(result)))
    case .failed(let failure): records.append(event: "error", failure.json)
    case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
    }
  }

  private func done(_ result: GenerationResult) -> JSON.Members {
    var members: JSON.Members = [:]
    members["messageId"] = result.messageID.map(JSON.string)
    members["sessionId"] = result.sessionID.map(JSON.string)
    members["finishReason"] = .string(result.completion.finishReason.rawValue)
    members["usage"] = result.completion.usage?.json
    members.append(result.outputMembers(toolCalls: "toolCalls"))
    members.merge(result.extraMembers)
    return members
  }
}
