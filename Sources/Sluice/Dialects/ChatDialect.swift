import EventStream
import JSON

/// Unnamed records that say their own type, for an EventSource's `onmessage`.
struct ChatDialect: Dialect {
  static let name = "chat"
  private static let chunkStart = Array("data: {\"type\":\"chunk\",\"content\":".utf8)

  init(_ stream: StreamMetadata) {}

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .started: break
    case .delta(let text): buffer.append(recordWith: text, after: Self.chunkStart, before: recordEnd)
    case .heartbeat: buffer.append(contentsOf: EventStreamEncoder.heartbeat)
    case .completed(let finish):
      var members: JSON.Members = ["type": "complete"]
      members["message_id"] = finish.messageID.map(JSON.string)
      members["session_id"] = finish.sessionID.map(JSON.string)
      members.merge(finish.extraMembers)
      buffer.append(record: nil, .object(members))
    case .failed(let failure):
      var members: JSON.Members = ["type": "error"]
      members.merge(failure.members)
      buffer.append(record: nil, .object(members))
    case .cancelled: buffer.append(record: nil, ["type": "cancelled"])
    }
  }
}
