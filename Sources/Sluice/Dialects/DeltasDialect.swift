import JSON

/// Unnamed records of a role and a delta. The first one contains the user's message; `[DONE]` marks completion, after a
/// record with the calls of tools if there are any.
struct DeltasDialect: Dialect {
  static let name = "deltas"
  private static let delta = RecordTemplate(#"{"role":"assistant","delta":"#, "}")
  private static let refusal = RecordTemplate(#"{"role":"assistant","delta":"#, #","refusal":true}"#)
  /// The user's message; cleared once it is sent, because it can be long.
  private var message: String

  init(_ stream: StreamMetadata) { message = stream.message }

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    records.append(Self.delta, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started:
      if message.isEmpty { break }
      records.append(["role": "user", "delta": .string(message)])
      message = ""
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .part(.refusal(let text)): records.append(Self.refusal, text)
    case .part: break
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result):
      if !result.toolCalls.isEmpty {
        records.append(["role": "assistant", "tool_calls": .array(result.toolCalls.map(\.json))])
      }
      records.appendDone()
    case .failed(let failure): records.append(event: "error", failure.json)
    case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
    }
  }
}
