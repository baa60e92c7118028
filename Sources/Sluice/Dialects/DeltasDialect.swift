import EventStream

/// Unnamed records of a role and a delta, the user's message first; `[DONE]` at the end.
struct DeltasDialect: Dialect {
  static let name = "deltas"
  private static let deltaStart = Array("data: {\"role\":\"assistant\",\"delta\":".utf8)
  /// Told once, and let go then: it may be long.
  private var message: String

  init(_ stream: StreamMetadata) { message = stream.message }

  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8]) {
    switch event {
    case .started:
      buffer.append(record: nil, ["role": "user", "delta": .string(message)])
      message = ""
    case .delta(let text): buffer.append(recordWith: text, after: Self.deltaStart, before: recordEnd)
    case .heartbeat: buffer.append(contentsOf: EventStreamEncoder.heartbeat)
    case .completed: buffer.appendDone()
    case .failed(let failure): buffer.append(record: "error", failure.json)
    case .cancelled(let reason): buffer.append(record: "cancelled", ["reason": .string(reason)])
    }
  }
}
