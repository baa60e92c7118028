import JSON

/// Unnamed records with a `type` member, for an EventSource's `onmessage` handler.
struct ChatDialect: Dialect {
  static let name = "chat"
  private static let chunk = RecordTemplate(#"{"type":"chunk","content":"#, "}")
  private static let refusal = RecordTemplate(#"{"type":"chunk","content":"#, #","refusal":true}"#)

  init(_ stream: StreamMetadata) {}

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    records.append(Self.chunk, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: break
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .part(.refusal(let text)): records.append(Self.refusal, text)
    case .part: break
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result):
      var members: JSON.Members = ["type": "complete"]
      members["message_id"] = result.messageID.map(JSON.string)
      members["session_id"] = result.sessionID.map(JSON.string)
      members["finish_reason"] = result.cutReason
      members.append(result.outputMembers(toolCalls: "tool_calls"))
      members.merge(result.extraMembers)
      records.append(.object(members))
    case .failed(let failure):
      var members: JSON.Members = ["type": "error"]
      members.merge(failure.members)
      records.append(.object(members))
    case .cancelled: records.append(["type": "cancelled"])
    }
  }
}
