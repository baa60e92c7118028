import JSON
import Upstream

/// `chat.completion.chunk` objects, as in OpenAI's streaming API.
struct OpenAIDialect: ChunkDialect {
  static let name = "openai"
  // The official Python client parses the empty data of an id-only event as JSON, and fails.
  static let allowsEventID = false

  /// The template of a delta's chunk.
  private let content: RecordTemplate
  /// The members that all chunks have in common, as the start of a JSON object.
  private let head: String
  private let wantsUsage: Bool

  init(_ stream: StreamMetadata) {
    head = Self.head(stream)
    wantsUsage = stream.wantsUsage
    let end = #"},"finish_reason":null}]"# + (wantsUsage ? Self.noUsage : "") + "}"
    content = RecordTemplate(head + #","choices":[{"index":0,"delta":{"content":"#, end)
  }

  private static func head(_ stream: StreamMetadata) -> String {
    let model = String(decoding: JSON.string(stream.model).encoded, as: UTF8.self)
    return #"{"id":"chatcmpl-\#(stream.messageID)","object":"chat.completion.chunk","created":\#(stream.createdAt),"#
      + #""model":\#(model)"#
  }

  private static let noUsage = #","usage":null"#

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    records.append(content, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: append(delta: #"{"role":"assistant","content":""}"#, finishReason: .null, to: &records)
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .part(let part): encode(chunk: OutputChunk(part), into: &records)
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result):
      append(
        delta: "{}", finishReason: .string(result.completion.finishReason.rawValue), result.completion.members,
        to: &records)
      if wantsUsage, let usage = result.completion.usage {
        // Its clients take them from the last chunk.
        records.append(
          RecordTemplate(head + #","choices":[],"usage":"#, Self.text(of: result.completion.members) + "}"), usage.json)
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

  /// Appends a delta that is more than text, as it came.
  func encode(chunk: OutputChunk, into records: inout Records) {
    let choices = chunk.choices.map { choice -> JSON in
      var members: JSON.Members = ["index": .integer(choice.index), "delta": .object(choice.delta)]
      members.merge(choice.members)
      members["finish_reason"] = members["finish_reason"] ?? .null
      return .object(members)
    }
    records.append(
      RecordTemplate(head + #","choices":"#, (wantsUsage ? Self.noUsage : "") + "}"), .array(choices))
  }

  /// - Parameter members: further members of the chunk.
  private func append(
    delta: StaticString, finishReason: JSON, _ members: JSON.Members = [:], to records: inout Records
  ) {
    let start = head + #","choices":[{"index":0,"delta":"# + "\(delta)" + #","finish_reason":"#
    let end = "}]" + (wantsUsage ? Self.noUsage : "") + Self.text(of: members) + "}"
    records.append(RecordTemplate(start, end), finishReason)
  }

  /// Returns members as the end of a JSON object, without its brace.
  private static func text(of members: JSON.Members) -> String {
    members.all.map { member in
      let name = String(decoding: JSON.string(member.name).encoded, as: UTF8.self)
      return ",\(name):" + String(decoding: member.value.encoded, as: UTF8.self)
    }.joined()
  }
}
