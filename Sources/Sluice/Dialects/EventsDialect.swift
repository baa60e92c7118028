import JSON
import Upstream

/// Named events: `token` and `heartbeat`, then one of `done`, `error` and `cancelled`.
struct EventsDialect: Dialect {
  static let name = "events"
  private static let token = RecordTemplate(event: "token", #"{"t":"#, "}")

  init(_ stream: StreamMetadata) {}

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    records.append(Self.token, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: break
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
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
    members.merge(result.extraMembers)
    return members
  }
}
