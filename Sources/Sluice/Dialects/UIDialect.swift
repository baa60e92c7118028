import FastCGI
import JSON
import Upstream

/// UI Message Stream v1, the format of the AI SDK's `useChat`.
struct UIDialect: Dialect {
  static let name = "ui"
  static let allowsEventID = false

  private static let textID: JSON = "text"
  private static let delta = RecordTemplate(#"{"type":"text-delta","id":"text","delta":"#, "}")
  private let messageID: String
  /// Whether the stream's only text part is open. The client throws on a delta or an end of a part that is not open.
  private var isTextOpen = false

  init(_ stream: StreamMetadata) { messageID = stream.messageID }

  func addFields(to head: inout ResponseHead) { head.set("x-vercel-ai-ui-message-stream", "v1") }

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    if !isTextOpen {
      records.append(["type": "text-start", "id": Self.textID])
      isTextOpen = true
    }
    records.append(Self.delta, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: records.append(["type": "start", "messageId": .string(messageID)])
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result):
      if isTextOpen { records.append(["type": "text-end", "id": Self.textID]) }
      let metadata = metadata(of: result)
      if !metadata.all.isEmpty {
        records.append(["type": "message-metadata", "messageMetadata": .object(metadata)])
      }
      records.append(
        ["type": "finish", "finishReason": .string(Self.reason(result.completion.finishReason))])
      records.appendDone()
    case .failed(let failure):
      records.append(["type": "error", "errorText": .string(failure.message)])
      records.appendDone()
    case .cancelled(let reason):
      records.append(["type": "abort", "reason": .string(reason)])
      records.appendDone()
    }
  }

  private func metadata(of result: GenerationResult) -> JSON.Members {
    var members: JSON.Members = [:]
    members["sessionId"] = result.sessionID.map(JSON.string)
    members["usage"] = result.completion.usage?.json
    members.merge(result.extraMembers)
    return members
  }

  /// Returns the client's name for a finish reason. The client throws on any other.
  private static func reason(_ reason: FinishReason) -> String {
    switch reason.rawValue {
    case "stop", "length": reason.rawValue
    case "content_filter": "content-filter"
    case "tool_calls": "tool-calls"
    default: "other"
    }
  }
}
