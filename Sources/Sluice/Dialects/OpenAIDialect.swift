import EventStream
import JSON
import Upstream

/// `chat.completion.chunk` objects, as OpenAI's API streams them.
struct OpenAIDialect: Dialect {
  static let name = "openai"
  // The official Python client reads an event whose data is empty as JSON.
  static let allowsEventID = false

  /// Everything up to the content, and everything behind it.
  private let contentStart: [UInt8]
  private let contentEnd: [UInt8]
  /// What all chunks have in common, without the closing brace.
  private let head: JSON.Members
  private let wantsUsage: Bool

  init(_ stream: StreamMetadata) {
    head = [
      "id": .string("chatcmpl-" + stream.messageID), "object": "chat.completion.chunk",
      "created": .integer(Timestamp.seconds), "model": .string(stream.model),
    ]
    wantsUsage = stream.wantsUsage
    contentStart =
      Array("data: ".utf8) + JSON.object(head).encoded.dropLast()
      + Array(",\"choices\":[{\"index\":0,\"delta\":{\"content\":".utf8)
    contentEnd = Array("},\"finish_reason\":null}]\(wantsUsage ? ",\"usage\":null" : "")}\n\n".utf8)
  }

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .started: buffer.append(record: nil, chunk(delta: ["role": "assistant", "content": ""], finishReason: .null))
    case .delta(let text): buffer.append(recordWith: text, after: contentStart, before: contentEnd)
    case .heartbeat: buffer.append(contentsOf: EventStreamEncoder.heartbeat)
    case .completed(let finish):
      buffer.append(record: nil, chunk(delta: [:], finishReason: .string(finish.completion.finishReason.rawValue)))
      if wantsUsage, let usage = finish.completion.usage {
        var members = head
        members["choices"] = []
        members["usage"] = usage.json
        buffer.append(record: nil, .object(members))
      }
      buffer.appendDone()
    case .failed(let failure): buffer.append(record: nil, ["error": failure.openAIJSON])
    case .cancelled(let reason):
      buffer.append(
        record: nil,
        [
          "error": [
            "message": .string("The answer was cancelled: \(reason)."), "type": "cancelled", "param": .null,
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
