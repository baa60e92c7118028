import JSON

/// Events named `chunk`, numbered from 0 without gaps; the final `complete` event contains their count.
struct ChunksDialect: Dialect {
  static let name = "chunks"
  private static let chunk = RecordTemplate(event: "chunk", #"{"token":"#, numberAfter: #","seq":"#, "}")
  private static let refusal = RecordTemplate(
    event: "chunk", #"{"token":"#, numberAfter: #","refusal":true,"seq":"#, "}")
  private var sequence = 0

  init(_ stream: StreamMetadata) {}

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    records.append(Self.chunk, utf8: delta, number: sequence)
    sequence += 1
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: break
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .part(.refusal(let text)):
      records.append(Self.refusal, utf8: text.utf8Span.span, number: sequence)
      sequence += 1
    case .part: break
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result):
      var members: JSON.Members = ["seq": .integer(sequence)]
      members["messageId"] = result.messageID.map(JSON.string)
      members["finishReason"] = result.cutReason
      members.append(result.outputMembers(toolCalls: "toolCalls"))
      members.merge(result.extraMembers)
      records.append(event: "complete", .object(members))
    case .failed(let failure): records.append(event: "error", failure.json)
    case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
    }
  }
}
