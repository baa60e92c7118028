import FastCGI
import JSON
import Upstream

/// UI Message Stream v1, the format of the AI SDK's `useChat`.
struct UIDialect: Dialect {
  static let name = "ui"
  static let allowsEventID = false

  /// A part of text. The client throws on a delta or an end of a part that is not open.
  private enum Part {
    case text, reasoning, refusal

    var start: JSON {
      switch self {
      case .text: ["type": "text-start", "id": "text"]
      case .reasoning: ["type": "reasoning-start", "id": "reasoning"]
      case .refusal:
        ["type": "text-start", "id": "refusal", "providerMetadata": ["sluice": ["refusal": .bool(true)]]]
      }
    }

    var end: JSON {
      switch self {
      case .text: ["type": "text-end", "id": "text"]
      case .reasoning: ["type": "reasoning-end", "id": "reasoning"]
      case .refusal: ["type": "text-end", "id": "refusal"]
      }
    }
  }

  private static let textDelta = RecordTemplate(#"{"type":"text-delta","id":"text","delta":"#, "}")
  private static let reasoningDelta = RecordTemplate(#"{"type":"reasoning-delta","id":"reasoning","delta":"#, "}")
  private static let refusalDelta = RecordTemplate(#"{"type":"text-delta","id":"refusal","delta":"#, "}")
  private let messageID: String
  private var openPart: Part?
  /// The calls of tools so far, in their order.
  private var toolCalls: [ToolCall] = []
  private var sources = 0

  init(_ stream: StreamMetadata) { messageID = stream.messageID }

  func addFields(to head: inout ResponseHead) { head.set("x-vercel-ai-ui-message-stream", "v1") }

  mutating func encode(delta: borrowing Span<UInt8>, into records: inout Records) {
    if openPart != .text { open(.text, &records) }
    records.append(Self.textDelta, utf8: delta)
  }

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: records.append(["type": "start", "messageId": .string(messageID)])
    case .delta(let text): encode(delta: text.utf8Span.span, into: &records)
    case .part(.reasoning(let text)):
      open(.reasoning, &records)
      records.append(Self.reasoningDelta, text)
    case .part(.refusal(let text)):
      open(.refusal, &records)
      records.append(Self.refusalDelta, text)
    case .part(.toolCall(let call)):
      open(nil, &records)
      encode(call, &records)
    case .part(.source(let url, let title)): encode(source: url, title: title, &records)
    case .heartbeat: records.appendHeartbeat()
    case .completed(let result): encode(result, &records)
    case .failed(let failure):
      records.append(["type": "error", "errorText": .string(failure.message)])
      records.appendDone()
    case .cancelled(let reason):
      records.append(["type": "abort", "reason": .string(reason)])
      records.appendDone()
    }
  }

  /// Ends the part that is open, and starts another one.
  private mutating func open(_ part: Part?, _ records: inout Records) {
    if part == openPart { return }
    if let openPart { records.append(openPart.end) }
    if let part { records.append(part.start) }
    openPart = part
  }

  /// Encodes a delta of a call. The call starts with its first argument, when its name is complete.
  private mutating func encode(_ delta: ToolCall, _ records: inout Records) {
    let place =
      toolCalls.firstIndex { $0.index == delta.index }
      ?? {
        toolCalls.append(ToolCall(index: delta.index))
        return toolCalls.count - 1
      }()
    let hasStarted = !toolCalls[place].arguments.isEmpty
    toolCalls[place].join(delta)
    if delta.arguments.isEmpty { return }
    if !hasStarted { start(toolCalls[place], &records) }
    records.append(
      [
        "type": "tool-input-delta", "toolCallId": Self.id(of: toolCalls[place]),
        "inputTextDelta": .string(delta.arguments),
      ])
  }

  private func start(_ call: ToolCall, _ records: inout Records) {
    records.append(["type": "tool-input-start", "toolCallId": Self.id(of: call), "toolName": .string(call.name ?? "")])
  }

  /// The id of a call, which some servers leave out.
  private static func id(of call: ToolCall) -> JSON {
    let id = call.id ?? ""
    return .string(id.isEmpty ? call.fallbackID : id)
  }

  private mutating func encode(source url: String, title: String?, _ records: inout Records) {
    sources += 1
    var source: JSON.Members = ["type": "source-url", "sourceId": .string("source-\(sources)"), "url": .string(url)]
    source["title"] = title.map(JSON.string)
    records.append(.object(source))
  }

  private mutating func encode(_ result: GenerationResult, _ records: inout Records) {
    open(nil, &records)
    for call in toolCalls {
      if call.arguments.isEmpty { start(call, &records) }
      let arguments = call.arguments.isEmpty ? "{}" : call.arguments
      let input = try? JSON(parsing: Array(arguments.utf8))
      var part: JSON.Members = [
        "type": input == nil ? "tool-input-error" : "tool-input-available", "toolCallId": Self.id(of: call),
        "toolName": .string(call.name ?? ""), "input": input ?? .string(arguments),
      ]
      if input == nil { part["errorText"] = "The arguments are not a JSON object." }
      records.append(.object(part))
    }
    for url in result.completion.members["citations"]?.array ?? [] {
      if let url = url.string { encode(source: url, title: nil, &records) }
    }
    let metadata = metadata(of: result)
    if !metadata.all.isEmpty {
      records.append(["type": "message-metadata", "messageMetadata": .object(metadata)])
    }
    records.append(["type": "finish", "finishReason": .string(Self.reason(result.completion.finishReason))])
    records.appendDone()
  }

  private func metadata(of result: GenerationResult) -> JSON.Members {
    var members: JSON.Members = [:]
    members["sessionId"] = result.sessionID.map(JSON.string)
    members["usage"] = result.completion.usage?.json
    members.merge(result.extraMembers)
    return members
  }

  /// Returns the client's name for a finish reason. The client throws on any other.
  private static func reason(_ reason: FinishReason) -> String {
    switch reason.rawValue {
    case "stop", "length": reason.rawValue
    case "content_filter": "content-filter"
    case "tool_calls", "function_call": "tool-calls"
    default: "other"
    }
  }
}
