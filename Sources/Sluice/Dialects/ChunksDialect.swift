import EventStream
import JSON

/// Events `chunk`, numbered from 0 without gaps; `complete` at the end says how many there were.
struct ChunksDialect: Dialect {
  static let name = "chunks"
  private static let chunkStart = Array("event: chunk\ndata: {\"token\":".utf8)
  private var sequence = 0

  init(_ stream: StreamMetadata) {}

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .started: break
    case .delta(let text):
      buffer.append(recordWith: text, after: Self.chunkStart, before: [])
      buffer.append(contentsOf: ",\"seq\":\(sequence)}\n\n".utf8)
      sequence += 1
    case .heartbeat: buffer.append(contentsOf: EventStreamEncoder.heartbeat)
    case .completed(let finish):
      var members: JSON.Members = ["seq": .integer(sequence)]
      members["messageId"] = finish.messageID.map(JSON.string)
      members.merge(finish.extraMembers)
      buffer.append(record: "complete", .object(members))
    case .failed(let failure): buffer.append(record: "error", failure.json)
    case .cancelled(let reason): buffer.append(record: "cancelled", ["reason": .string(reason)])
    }
  }
}
