/// Unnamed records of a role and a delta, the user's message first; `[DONE]` at the end.
struct DeltasDialect: Dialect {
  static let name = "deltas"
  private static let delta = RecordTemplate(#"{"role":"assistant","delta":"#, "}")
  /// Told once, and let go then: it may be long.
  private var message: String

  init(_ stream: StreamMetadata) { message = stream.message }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started:
      if message.isEmpty { break }
      records.append(["role": "user", "delta": .string(message)])
      message = ""
    case .delta(let text): records.append(Self.delta, text)
    case .heartbeat: records.appendHeartbeat()
    case .completed: records.appendDone()
    case .failed(let failure): records.append(event: "error", failure.json)
    case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
    }
  }
}
