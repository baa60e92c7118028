import EventStream
import FastCGI
import JSON
import Upstream

/// UI Message Stream v1, which the AI SDK's `useChat` reads.
struct UIDialect: Dialect {
  static let name = "ui"
  static let allowsEventID = false

  private static let textID: JSON = "text"
  private static let deltaStart = Array("data: {\"type\":\"text-delta\",\"id\":\"text\",\"delta\":".utf8)
  private let messageID: String
  /// Whether the one part of text is open: a delta or an end of one that is not makes the client throw.
  private var isTextOpen = false

  init(_ stream: StreamMetadata) { messageID = stream.messageID }

  func addFields(to head: inout ResponseHead) { head.set("x-vercel-ai-ui-message-stream", "v1") }

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .started: buffer.append(record: nil, ["type": "start", "messageId": .string(messageID)])
    case .delta(let text):
      if !isTextOpen {
        buffer.append(record: nil, ["type": "text-start", "id": Self.textID])
        isTextOpen = true
      }
      buffer.append(recordWith: text, after: Self.deltaStart, before: recordEnd)
    case .heartbeat: buffer.append(contentsOf: EventStreamEncoder.heartbeat)
    case .completed(let finish):
      if isTextOpen { buffer.append(record: nil, ["type": "text-end", "id": Self.textID]) }
      let metadata = metadata(of: finish)
      if !metadata.all.isEmpty {
        buffer.append(record: nil, ["type": "message-metadata", "messageMetadata": .object(metadata)])
      }
      buffer.append(
        record: nil, ["type": "finish", "finishReason": .string(Self.reason(finish.completion.finishReason))])
      buffer.appendDone()
    case .failed(let failure):
      buffer.append(record: nil, ["type": "error", "errorText": .string(failure.message)])
      buffer.appendDone()
    case .cancelled(let reason):
      buffer.append(record: nil, ["type": "abort", "reason": .string(reason)])
      buffer.appendDone()
    }
  }

  private func metadata(of finish: GenerationResult) -> JSON.Members {
    var members: JSON.Members = [:]
    members["sessionId"] = finish.sessionID.map(JSON.string)
    members["usage"] = finish.completion.usage?.json
    members.merge(finish.extraMembers)
    return members
  }

  /// The client knows these words and throws at any other.
  private static func reason(_ reason: FinishReason) -> String {
    switch reason.rawValue {
    case "stop", "length": reason.rawValue
    case "content_filter": "content-filter"
    case "tool_calls": "tool-calls"
    default: "other"
    }
  }
}
