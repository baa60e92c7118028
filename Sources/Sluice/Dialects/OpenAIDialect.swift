import JSON
import Upstream

/// `chat.completion.chunk` objects, as in OpenAI's streaming API.
struct OpenAIDialect: Dialect {
  static let name = "openai"
  // The official Python client parses the empty data of an id-only event as JSON, and fails.
  static let allowsEventID = false

  /// The template of a delta's chunk.
  private let content: RecordTemplate
  /// The members that all chunks have in common.
  private let head: JSON.Members
  private let wantsUsage: Bool

  init(_ stream: StreamMetadata) {
    head = [
      "id": .string("chatcmpl-" + stream.messageID), "object": "chat.completion.chunk",
      "created": .integer(Timestamp.seconds), "model": .string(stream.model),
    ]
    wantsUsage = stream.wantsUsage
    let start = String(decoding: JSON.object(head).encoded.dropLast(), as: UTF8.self)
    content = RecordTemplate(
      start + #","choices":[{"index":0,"delta":{"content":"#,
      #"},"finish_reason":null}]"# + (wantsUsage ? #","usage":null}"# : "}"))
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: records.append(chunk(delta: ["role": "assistant", "content": ""], finishReason: .null))
    case .delta(let text): records.append(content, text)
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result):
      records.append(chunk(delta: [:], finishReason: .string(result.completion.finishReason.rawValue)))
      if wantsUsage, let usage = result.completion.usage {
        var members = head
        members["choices"] = []
        members["usage"] = usage.json
        records.append(.object(members))
      }
      records.appendDone()
    case .failed(let failure): records.append(["error": failure.openAIJSON])
    case .cancelled(let reason):
      records.append(
        [
          "error": [
            "message": .string("The stream was cancelled: \(reason)."), "type": "cancelled", "param": .null,
            "code": "cancelled", "retriable": .bool(false),
          ]
        ])
    }
  }

  private func chunk(delta: JSON, finishReason: JSON) -> JSON {
    var members = head
    members["choices"] = [["index": .integer(0), "delta": delta, "finish_reason": finishReason]]
    if wantsUsage { members["usage"] = .null }
    return .object(members)
  }
}
