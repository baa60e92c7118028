import Bytes
import JSON
import SluiceTesting
import Testing

@testable import Upstream

/// A response body that an upstream can send, and the expected result.
struct Body: Sendable, CustomTestStringConvertible {
  enum End: Sendable, Equatable {
    case complete(String, Usage? = nil)
    case fails(GeneratorError.Code)
  }

  let name: String
  let bytes: String
  let text: String
  let end: End
  var testDescription: String { name }
}

private func chunk(_ delta: String, finish: String = "null", more: String = "") -> String {
  "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":\(delta),\"finish_reason\":\(finish)}]\(more)}\n\n"
}

private let bodies: [Body] = [
  Body(
    name: "OpenAI, with usage",
    bytes: chunk("{\"role\":\"assistant\",\"content\":\"\"}", more: ",\"usage\":null") + chunk("{\"content\":\"Hel\"}")
      + chunk("{\"content\":\"lo\"}") + chunk("{}", finish: "\"stop\"")
      + "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"total_tokens\":3}}\n\ndata: [DONE]\n\n",
    text: "Hello", end: .complete("stop", Usage(promptTokens: 1, completionTokens: 2, totalTokens: 3))),
  Body(
    name: "CRLF and no space after data:",
    bytes: "data:{\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\ndata:[DONE]\r\n\r\n", text: "a",
    end: .complete("stop")),
  Body(
    name: "llama.cpp, with pings",
    bytes: ": ping\n\n" + chunk("{\"content\":\"a\"}") + ":\n\n" + chunk("{}", finish: "\"length\""),
    text: "a", end: .complete("length")),
  Body(
    name: "[DONE] without a finish_reason", bytes: chunk("{\"content\":\"a\"}") + "data: [DONE]\n\n", text: "a",
    end: .complete("stop")),
  Body(
    name: "OpenRouter's comments",
    bytes: ": OPENROUTER PROCESSING\n\n" + chunk("{\"content\":\"a\"}", finish: "\"stop\""), text: "a",
    end: .complete("stop")),
  Body(
    name: "neither finish_reason nor [DONE]", bytes: chunk("{\"content\":\"a\"}"), text: "a", end: .fails(.truncated)),
  Body(
    name: "Ollama's silent end", bytes: chunk("{\"content\":\"a\"}") + chunk("{\"content\":\"\"}", finish: "\"\""),
    text: "a", end: .fails(.truncated)),
  Body(name: "nothing at all", bytes: "", text: "", end: .fails(.failed)),
  Body(
    name: "vLLM's error, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "data: {\"error\":{\"message\":\"boom\"}}\n\ndata: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(name: "an error as a string", bytes: "data: {\"error\":\"boom\"}\n\n", text: "", end: .fails(.failed)),
  Body(name: "junk", bytes: chunk("{\"content\":\"a\"}") + "data: <html>\n\n", text: "a", end: .fails(.failed)),
  Body(
    name: "half a chunk", bytes: chunk("{\"content\":\"a\"}") + "data: {\"choices\":[{\"delta\":{\"con", text: "a",
    end: .fails(.truncated)),
  Body(
    name: "text after [DONE] does not count",
    bytes: chunk("{\"content\":\"a\"}") + "data: [DONE]\n\n" + chunk("{\"content\":\"b\"}"), text: "a",
    end: .complete("stop")),
  Body(
    name: "null content, tool calls, reasoning",
    bytes: chunk("{\"content\":null,\"reasoning\":\"hm\",\"tool_calls\":[{\"a\":[1]}]}")
      + chunk("{\"content\":\"a\"}", finish: "\"stop\""), text: "a", end: .complete("stop")),
  Body(
    name: "a second choice, which is not joined to the first",
    bytes:
      "data: {\"choices\":[{\"delta\":{\"content\":\"b\"},\"index\":1},{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n"
      + "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"c\"},\"finish_reason\":\"length\"}]}\n\n"
      + chunk("{}", finish: "\"stop\""), text: "a", end: .complete("stop")),
  Body(
    name: "reasons for which a response is complete",
    bytes: chunk("{\"content\":\"a\"}", finish: "\"content_filter\""), text: "a", end: .complete("content_filter")),
  Body(
    name: "an error inside the choice, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}")
      + "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"error\":{\"code\":502,\"message\":\"x\"}}]}\n\n"
      + "data: [DONE]\n\n", text: "a", end: .fails(.failed)),
  Body(
    name: "an error that is an event of its own, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}")
      + "data: {\"object\":\"error\",\"message\":\"x\",\"type\":\"BadRequest\",\"code\":400}\n\ndata: [DONE]\n\n",
    text: "a", end: .fails(.failed)),
  Body(
    name: "FastAPI's detail, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "data: {\"detail\":\"Internal Server Error\"}\n\ndata: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "anything else in a chunk's place, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "data: {\"message\":\"x\",\"status\":500}\n\ndata: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "llama.cpp's field of an error, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "error: {\"code\":500,\"message\":\"x\"}\n\ndata: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "an event of type error, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "event: error\ndata: {}\n\ndata: [DONE]\n\n", text: "a", end: .fails(.failed)),
  Body(
    name: "an event of type error without data, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "event: error\n\ndata: [DONE]\n\n", text: "a", end: .fails(.failed)),
  Body(
    name: "bare JSON, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}") + "{\"error\":{\"message\":\"x\"}}\n\ndata: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "Groq's reason for stopping, then [DONE]",
    bytes: chunk("{\"content\":\"a\"}", more: ",\"x_groq\":{\"id\":\"r\"}")
      + chunk("{}", more: ",\"x_groq\":{\"id\":\"r\",\"error\":\"over_capacity\"}") + "data: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "members that only look like an error",
    bytes: chunk("{\"content\":\"a\"}", more: ",\"error_code\":0,\"error_msg\":\"Success\"")
      + chunk("{}", finish: "\"stop\""), text: "a", end: .complete("stop")),
  Body(
    name: "an error of another choice",
    bytes: chunk("{\"content\":\"a\"}")
      + "data: {\"choices\":[{\"index\":1,\"delta\":{},\"error\":{\"code\":1}}]}\n\ndata: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "an error inside the delta",
    bytes: chunk("{\"content\":\"a\"}") + chunk("{\"error\":{\"message\":\"x\"}}") + "data: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "a finish_reason that is no text",
    bytes: chunk("{\"content\":\"a\"}") + chunk("{}", finish: "{\"type\":\"error\"}") + "data: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "choices without an index: the first one counts",
    bytes:
      "data: {\"choices\":[{\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"},{\"delta\":{\"content\":\"b\"}}]}\n\n",
    text: "a", end: .complete("stop")),
  Body(
    name: "content in parts",
    bytes: chunk("{\"content\":[{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"hm\"}]}]}")
      + chunk(
        "{\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}", finish: "\"stop\""),
    text: "ab", end: .complete("stop")),
  Body(
    name: "content that cannot be read",
    bytes: chunk("{\"content\":\"a\"}") + chunk("{\"content\":{\"x\":1}}") + "data: [DONE]\n\n", text: "a",
    end: .fails(.failed)),
  Body(
    name: "an event without a choice behind the text, and then nothing but [DONE]",
    bytes: chunk("{\"content\":\"a\"}")
      + "data: {\"choices\":[],\"message\":\"Internal\",\"code\":500}\n\ndata: [DONE]\n\n",
    text: "a", end: .fails(.truncated)),
  Body(
    name: "errors beside a choice's place",
    bytes: chunk("{\"content\":\"a\"}") + "data: {\"choices\":[],\"detail\":\"x\"}\n\n"
      + chunk("{}", finish: "\"stop\""),
    text: "a", end: .fails(.failed)),
  Body(
    name: "members that are no error, and events that say nothing",
    bytes: chunk("{\"content\":\"a\"}", more: ",\"error\":null") + "data: {}\n\n"
      + "data: {\"object\":\"chat.completion.chunk\",\"id\":\"x\"}\n\n"
      + "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n"
      + chunk("{\"content\":\"b\"}", finish: "\"stop\"", more: ",\"error\":\"\""), text: "ab", end: .complete("stop")),
  Body(
    name: "several chunks in one event's lines",
    bytes: "data: {\"choices\":[\ndata: {\"delta\":{\"content\":\"a\"}}]}\n\ndata: [DONE]\n\n", text: "a",
    end: .complete("stop")),
  Body(
    name: "escapes, characters of four bytes, halves of surrogates",
    bytes: chunk("{\"content\":\"\\n\\u0000\\ud83c\\udfa7🎧\\ud83c!\\udfa7\"}") + "data: [DONE]\n\n",
    text: "\n\0🎧🎧\u{FFFD}!\u{FFFD}", end: .complete("stop")),
]

@Suite("Streamed chat completion")
struct CompletionReaderTests {
  @Test(
    "A finish reason that does not mean completion is a failure, whatever follows",
    arguments: [
      ("error", 1), ("abort", 1), ("insufficient_system_resource", 1), ("timeout", 1), ("STOP", 1), ("stop", 200_000),
    ])
  func unknownReasons(word: String, times: Int) {
    let reason = String(repeating: word, count: times)
    let body = chunk("{\"content\":\"a\"}") + chunk("{}", finish: "\"\(reason)\"") + "data: [DONE]\n\n"
    let (text, end) = read([Array(body.utf8)])
    #expect(text == "a" && end == .fails(.failed))
  }

  @Test("Reasoning, refusals, calls of tools and sources are parts of the output")
  func parts() {
    let deltas: [(String, [OutputPart])] = [
      (#"{"reasoning_content":"hm"}"#, [.reasoning("hm")]), (#"{"reasoning":"hm"}"#, [.reasoning("hm")]),
      (#"{"reasoning_content":"hm","reasoning":"hm","content":"a"}"#, [.reasoning("hm")]),
      (#"{"content":[{"type":"thinking","thinking":"hm"}]}"#, [.reasoning("hm")]),
      (#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]}]}"#, [.reasoning("hm")]),
      (#"{"refusal":"no"}"#, [.refusal("no")]),
      (
        #"{"tool_calls":[{"index":1,"id":"c","type":"function","function":{"name":"f","arguments":""}}]}"#,
        [.toolCall(ToolCall(index: 1, id: "c", name: "f"))]
      ),
      (
        #"{"tool_calls":[{"index":1,"function":{"arguments":"{\""}}]}"#,
        [.toolCall(ToolCall(index: 1, arguments: "{\""))]
      ),
      (
        #"{"function_call":{"name":"f","arguments":"{}"}}"#,
        [.toolCall(ToolCall(index: 0, name: "f", arguments: "{}"))]
      ),
      (
        #"{"annotations":[{"type":"url_citation","url_citation":{"url":"http://a","title":"A"}},{"type":"other"}]}"#,
        [.source(url: "http://a", title: "A")]
      ),
      (#"{"reasoning_details":[{"text":"hm"}]}"#, [.reasoning("hm")]),
      (#"{"reasoning":{"text":"hm"}}"#, [.reasoning("hm")]),
      (#"{"refusal":["no"]}"#, [.refusal("no")]),
      (#"{"content":[{"type":"refusal","refusal":"no"}]}"#, [.refusal("no")]),
      (
        #"{"tool_calls":[{"id":"c","function":{"name":"f","arguments":{"a":1}}}]}"#,
        [.toolCall(ToolCall(index: 0, id: "c", name: "f", arguments: #"{"a":1}"#))]
      ),
      (
        #"{"tool_calls":{"id":"c","type":"custom","custom":{"name":"f","input":"text"}}}"#,
        [.toolCall(ToolCall(index: 0, id: "c", name: "f", arguments: "text"))]
      ),
      (#"{"tool_calls":[null,1],"x":1}"#, []),
    ]
    for (delta, parts) in deltas {
      #expect(chunks(chunk(delta)).flatMap(\.parts) == parts, "\(delta)")
      #expect(chunks(chunk(delta)).count == 1, "\(delta)")
    }
    for delta in [
      #"{"content":"a"}"#, #"{"role":"assistant","content":""}"#,
      #"{"reasoning_content":"","reasoning":null,"refusal":null,"tool_calls":[]}"#,
    ] {
      #expect(chunks(chunk(delta)).isEmpty, "\(delta)")
    }
  }

  @Test("Calls that come whole, without an index, are different calls")
  func callsWithoutIndex() {
    let calls = ["a", "b"].map {
      chunk(#"{"tool_calls":[{"id":"\#($0)","type":"function","function":{"name":"f","arguments":"\#($0)"}}]}"#)
    }
    let end = chunk(#"{"tool_calls":[{"function":{"arguments":"!"}}]}"#)
    var joined = OutputChunk()
    for chunk in chunks(calls.joined() + end) { joined.join(chunk) }
    #expect(
      joined.first?.toolCalls == [
        ToolCall(index: 0, id: "a", name: "f", arguments: "a"), ToolCall(index: 1, id: "b", name: "f", arguments: "b!"),
      ])
  }

  @Test("Several choices are complete when all of them have finished, not with the first")
  func severalChoices() throws {
    var reader = CompletionReader(chunks: ChunkParser(), choices: 2)
    func feed(_ text: String) throws { try reader.feed(Array(text.utf8).span, emit: { _ in }) }
    try feed(chunk(#"{"content":"a"}"#, finish: "\"stop\""))
    #expect(!reader.isFinished)
    try feed(#"data: {"choices":[{"index":1,"delta":{"content":"b"}}]}"# + "\n\n")
    #expect(!reader.isFinished)
    #expect(throws: GeneratorError.self) { try reader.completion() }
    try feed(#"data: {"choices":[{"index":1,"delta":{},"finish_reason":"length"}]}"# + "\n\n")
    #expect(reader.isFinished)
    #expect(try reader.completion().finishReason == .stop)
  }

  @Test("The usage has its details, and the response its other members")
  func members() throws {
    var reader = CompletionReader(chunks: ChunkParser())
    let usage =
      #"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1},"cost":0.5}"#
    let body =
      chunk(#"{"content":"a"}"#, more: #","system_fingerprint":"fp","obfuscation":"xxxx","citations":["http://a"]"#)
      + chunk("{}", finish: "\"stop\"", more: #","system_fingerprint":"fp2","service_tier":"default""#)
      + #"data: {"choices":[],"usage":\#(usage),"timings":{"ms":1}}"# + "\n\ndata: [DONE]\n\n"
    try reader.feed(Array(body.utf8).span, emit: { _ in })
    let completion = try reader.completion()
    #expect(completion.usage?.details == ["prompt_tokens_details": ["cached_tokens": 1], "cost": .literal("0.5")])
    #expect(
      JSON.object(completion.members) == [
        "system_fingerprint": "fp2", "citations": ["http://a"], "service_tier": "default", "timings": ["ms": 1],
      ])
  }

  /// The deltas of a body that are more than text.
  private func chunks(_ body: String) -> [OutputChunk] {
    var reader = CompletionReader(chunks: ChunkParser())
    var chunks: [OutputChunk] = []
    try? reader.feed(Array(body.utf8).span, emit: { _ in }, emitChunk: { chunks.append($0) })
    return chunks
  }

  @Test("A body is parsed identically at every split", arguments: bodies)
  func splits(body: Body) {
    let bytes = Array(body.bytes.utf8)
    for split in 0...bytes.count {
      let (text, end) = read([Array(bytes[..<split]), Array(bytes[split...])])
      #expect(text == body.text, "split at \(split)")
      #expect(end == body.end, "split at \(split)")
    }
  }

  @Test("A body is parsed identically byte by byte", arguments: bodies)
  func bytewise(body: Body) {
    let (text, end) = read(body.bytes.utf8.map { [$0] })
    #expect(text == body.text)
    #expect(end == body.end)
  }

  @Test("A mutated body is parsed identically however it is split, and never traps", arguments: 0..<300)
  func malformed(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let body = bodies[seed % bodies.count]
    let bytes = Array(body.bytes.utf8).mutated(&random)
    let whole = read([bytes])
    let pieces = read(bytes.splitIntoChunks(&random))
    #expect(whole.0 == pieces.0 && whole.1 == pieces.1, "seed \(seed), \(body.name)")
  }

  private func read(_ pieces: [[UInt8]]) -> (String, Body.End) {
    var reader = CompletionReader(chunks: ChunkParser())
    var text = ""
    do throws(GeneratorError) {
      for piece in pieces {
        try reader.feed(
          piece.span, emit: { text += String(decodingUTF8: $0) }, emitChunk: { text += $0.text })
      }
      let completion = try reader.completion()
      return (text, .complete(completion.finishReason.rawValue, completion.usage))
    } catch { return (text, .fails(error.code)) }
  }
}
