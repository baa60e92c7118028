import EventLoop
import Foundation
import JSON
import Sluice
import SluiceTesting
import Testing

/// The body of a streamed response: a chunk for each choice, as JSON, and the usage.
private func stream(_ choices: [String], usage: String? = nil) -> String {
  let chunks = choices.map { #"{"id":"x","object":"chat.completion.chunk","choices":[\#($0)]}"# }
  let end = usage.map { [#"{"id":"x","object":"chat.completion.chunk","choices":[],"usage":\#($0)}"#] } ?? []
  return (chunks + end).map { "data: \($0)\n\n" }.joined() + "data: [DONE]\n\n"
}

private func delta(_ delta: String, _ finish: String = "null", index: Int = 0, more: String = "") -> String {
  #"{"index":\#(index),"delta":\#(delta),"finish_reason":\#(finish)\#(more)}"#
}

/// A model that reasons, says something, and calls two tools.
private let agent = stream([
  delta(#"{"role":"assistant","content":""}"#), delta(#"{"reasoning_content":"Let me "}"#),
  delta(#"{"reasoning_content":"look."}"#), delta(#"{"content":"I look."}"#),
  delta(#"{"tool_calls":[{"index":0,"id":"c0","type":"function","function":{"name":"find","arguments":""}}]}"#),
  delta(#"{"tool_calls":[{"index":0,"function":{"arguments":"{\"q\":"}}]}"#),
  delta(#"{"tool_calls":[{"index":0,"function":{"arguments":"\"a b\"}"}}]}"#),
  delta(#"{"tool_calls":[{"index":1,"id":"c1","type":"function","function":{"name":"now","arguments":"{}"}}]}"#),
  delta("{}", #""tool_calls""#),
])

private let refusal = stream([
  delta(#"{"role":"assistant","content":null,"refusal":"I can"}"#), delta(#"{"refusal":"not."}"#),
  delta("{}", #""stop""#),
])

private let calls: JSON = [
  ["id": "c0", "name": "find", "arguments": #"{"q":"a b"}"#], ["id": "c1", "name": "now", "arguments": "{}"],
]
/// The same calls in a message of OpenAI's API.
private let callObjects: JSON = [
  ["id": "c0", "type": "function", "function": ["name": "find", "arguments": #"{"q":"a b"}"#]],
  ["id": "c1", "type": "function", "function": ["name": "now", "arguments": "{}"]],
]
private let question: JSON = [["role": "user", "content": "a"]]

/// An application whose model server answers with `body`.
private struct Fixture {
  let upstream: ScriptedUpstream
  let memory: InMemory
  var client: TestClient { memory.client }

  init(_ body: String, _ environment: [String: String] = [:]) throws {
    upstream = try ScriptedUpstream { $0.respond("200 OK", body, type: "text/event-stream") }
    // A stream that can be read again is not forgotten, however slow the test is.
    let clock = environment["SLUICE_RESUME"] == nil ? LoopClock.continuous : SlowClock().loopClock
    memory = try InMemory(clock: clock, ["SLUICE_UPSTREAM_URL": upstream.baseURL].merging(environment) { $1 })
  }

  /// The events of a streamed message, with the dialect's own JSON.
  func events(_ dialect: String, headers: [String: String] = [:]) async throws -> [TestResponse.Event] {
    let response = try await client.send(
      "POST", "/api/chat?dialect=\(dialect)", headers: headers, body: ["message": "a", "sessionId": "s"])
    #expect(response.status == 200, "\(response)")
    return response.events
  }

  func completion(_ body: JSON.Members = [:]) async throws -> TestResponse {
    var all: JSON.Members = ["messages": question]
    all.merge(body)
    return try await client.send("POST", "/v1/chat/completions", body: .object(all))
  }

  /// The messages of the last request to the model server.
  var asked: [JSON] {
    (try? JSON(parsing: Array((upstream.requests.last?.body ?? "").utf8)))?["messages"]?.array ?? []
  }
}

@Suite("Reasoning, tool calls and refusals")
struct OutputPartTests {
  @Test("The dialect events has events for reasoning and tool calls, and says the calls in done")
  func events() async throws {
    let events = try await Fixture(agent).events("events")
    #expect(
      events.map { "\($0.type) \($0.data)" }.dropLast() == [
        #"reasoning {"t":"Let me "}"#, #"reasoning {"t":"look."}"#, #"token {"t":"I look."}"#,
        #"tool_call {"index":0,"id":"c0","name":"find","arguments":""}"#,
        #"tool_call {"index":0,"arguments":"{\"q\":"}"#, #"tool_call {"index":0,"arguments":"\"a b\"}"}"#,
        #"tool_call {"index":1,"id":"c1","name":"now","arguments":"{}"}"#,
      ])
    #expect(events.last?.type == "done" && events.last?.json?["toolCalls"] == calls, "\(events)")
    #expect(events.last?.json?["finishReason"] == "tool_calls")
  }

  @Test("The dialects chat, chunks and deltas leave reasoning out, and say tool calls at their end")
  func otherDialects() async throws {
    let fixture = try Fixture(agent)
    let chat = try await fixture.events("chat")
    #expect(chat.first?.data == #"{"type":"chunk","content":"I look."}"#, "\(chat)")
    #expect(chat.count == 2 && chat.last?.json?["tool_calls"] == calls, "\(chat)")
    let chunks = try await fixture.events("chunks")
    #expect(chunks.first?.data == #"{"token":"I look.","seq":0}"#, "\(chunks)")
    #expect(
      chunks.count == 2 && chunks.last?.json?["seq"] == 1 && chunks.last?.json?["toolCalls"] == calls, "\(chunks)")
    let deltas = try await fixture.events("deltas")
    #expect(deltas.map(\.data).contains(#"{"role":"assistant","delta":"I look."}"#), "\(deltas)")
    #expect(deltas.dropLast().last?.json == ["role": "assistant", "tool_calls": calls], "\(deltas)")
    #expect(deltas.count == 4 && deltas.last?.data == "[DONE]", "\(deltas)")
  }

  @Test("The dialect ui has the AI SDK's parts for reasoning and tool calls")
  func ui() async throws {
    let events = try await Fixture(agent).events("ui")
    #expect(
      events.dropFirst().dropLast(3).map(\.data) == [
        #"{"type":"reasoning-start","id":"reasoning"}"#,
        #"{"type":"reasoning-delta","id":"reasoning","delta":"Let me "}"#,
        #"{"type":"reasoning-delta","id":"reasoning","delta":"look."}"#,
        #"{"type":"reasoning-end","id":"reasoning"}"#, #"{"type":"text-start","id":"text"}"#,
        #"{"type":"text-delta","id":"text","delta":"I look."}"#, #"{"type":"text-end","id":"text"}"#,
        #"{"type":"tool-input-start","toolCallId":"c0","toolName":"find"}"#,
        #"{"type":"tool-input-delta","toolCallId":"c0","inputTextDelta":"{\"q\":"}"#,
        #"{"type":"tool-input-delta","toolCallId":"c0","inputTextDelta":"\"a b\"}"}"#,
        #"{"type":"tool-input-start","toolCallId":"c1","toolName":"now"}"#,
        #"{"type":"tool-input-delta","toolCallId":"c1","inputTextDelta":"{}"}"#,
        #"{"type":"tool-input-available","toolCallId":"c0","toolName":"find","input":{"q":"a b"}}"#,
        #"{"type":"tool-input-available","toolCallId":"c1","toolName":"now","input":{}}"#,
      ])
    #expect(events.dropLast().last?.data == #"{"type":"finish","finishReason":"tool-calls"}"#, "\(events)")
    let broken = stream([
      delta(#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a"}}]}"#),
      delta(#"{"annotations":[{"type":"url_citation","url_citation":{"url":"http://a","title":"A"}}]}"#, #""length""#),
    ])
    let types = try await Fixture(broken).events("ui").compactMap(\.json)
    #expect(
      types.contains(["type": "source-url", "sourceId": "source-1", "url": "http://a", "title": "A"]), "\(types)")
    #expect(types.contains { $0["type"] == "tool-input-error" && $0["input"] == #"{"a"# }, "\(types)")
  }

  @Test("A refusal is text of its own kind: marked in every dialect, and apart from the text in JSON")
  func refusals() async throws {
    let fixture = try Fixture(refusal)
    let expected = [
      "events": #"{"t":"I can","refusal":true}"#, "chat": #"{"type":"chunk","content":"I can","refusal":true}"#,
      "chunks": #"{"token":"not.","refusal":true,"seq":1}"#,
      "deltas": #"{"role":"assistant","delta":"not.","refusal":true}"#,
      "ui": #"{"type":"text-start","id":"refusal","providerMetadata":{"sluice":{"refusal":true}}}"#,
      "openai": #""delta":{"refusal":"I can"}"#,
    ]
    for (dialect, record) in expected {
      let events = try await fixture.events(dialect)
      #expect(events.contains { $0.data.contains(record) }, "\(dialect) \(events)")
      if ["events", "chat", "chunks"].contains(dialect) {
        #expect(events.last?.json?["refusal"] == "I cannot.", "\(dialect) \(events)")
      }
    }
    let chat = try await fixture.client.send("POST", "/api/chat", body: ["message": "a", "stream": .bool(false)])
    #expect(chat.json?["message"] == "" && chat.json?["refusal"] == "I cannot.", "\(chat)")
    let completion = try await fixture.completion()
    #expect(
      completion.json?["choices"]?.array?.first?["message"] == [
        "role": "assistant", "content": .null, "refusal": "I cannot.",
      ], "\(completion)")
    let session = try await fixture.client.send("GET", "/api/sessions/s")
    #expect(
      session.json?["turns"]?.array?.first?["assistant"] == ["content": "", "refusal": "I cannot."], "\(session)")
    _ = try await fixture.events("events")
    #expect(
      fixture.asked.contains(["role": "assistant", "content": .null, "refusal": "I cannot."]), "\(fixture.asked)")
  }

  @Test("A stored turn keeps the tool calls, and goes back to the model server with a result for each")
  func storedCalls() async throws {
    let fixture = try Fixture(agent)
    _ = try await fixture.events("events")
    let session = try await fixture.client.send("GET", "/api/sessions/s")
    #expect(
      session.json?["turns"]?.array?.first?["assistant"] == [
        "content": "I look.", "finishReason": "tool_calls", "toolCalls": calls,
      ], "\(session)")
    let messages = try await fixture.client.send("GET", "/messages/?chat_id=s")
    #expect(messages.json?["messages"]?.array?.last?["tool_calls"] == calls, "\(messages)")
    _ = try await fixture.events("events")
    let history = fixture.asked.drop { $0["role"] != "assistant" }.prefix(3)
    let results = ["c0", "c1"].map { id -> JSON in
      ["role": "tool", "tool_call_id": .string(id), "content": "This call was not run."]
    }
    #expect(
      Array(history) == [["role": "assistant", "content": "I look.", "tool_calls": callObjects]] + results,
      "\(fixture.asked)")
  }

  @Test("Reasoning is stored, and sent with later prompts, only where that is wanted", arguments: [true, false])
  func storedReasoning(isWanted: Bool) async throws {
    let fixture = try Fixture(agent, ["SLUICE_STORE_REASONING": isWanted ? "on" : "off"])
    _ = try await fixture.events("events", headers: ["Idempotency-Key": "k"])
    let path = fixture.memory.directory.path + "/state/users/anonymous/sessions/s.jsonl"
    let file = try String(contentsOfFile: path, encoding: .utf8)
    #expect(file.contains("Let me look.") == isWanted, "\(file)")
    let session = try await fixture.client.send("GET", "/api/sessions/s")
    let reasoning = session.json?["turns"]?.array?.first?["assistant"]?["reasoning"]
    #expect(reasoning == (isWanted ? "Let me look." : nil), "\(session)")
    // A replay keeps what the store keeps.
    let replay = try await fixture.events("events", headers: ["Idempotency-Key": "k"])
    #expect(fixture.upstream.requests.count == 1)
    #expect(replay.contains { $0.type == "reasoning" } == isWanted, "\(replay)")
    #expect(replay.last?.json?["toolCalls"] == calls && replay.contains { $0.type == "tool_call" }, "\(replay)")
    _ = try await fixture.events("events")
    #expect(fixture.asked.contains { $0["reasoning_content"] == "Let me look." } == isWanted, "\(fixture.asked)")
  }

  @Test("A stream that is read again has its reasoning and tool calls, from any place")
  func readAgain() async throws {
    let fixture = try Fixture(agent, ["SLUICE_RESUME": "60s"])
    let response = try await fixture.client.send(
      "POST", "/api/chat", body: ["message": "a", "sessionId": "s"])
    let id = response.headers["sluice-stream-id"] ?? ""
    let all = response.events.map(\.data)
    #expect(all.count == 8, "\(all)")
    for after in 0...7 {
      let again = try await fixture.client.send("GET", "/api/streams/\(id)?after=\(after)")
      #expect(again.events.map(\.data) == Array(all.dropFirst(after)), "after \(after): \(again)")
    }
    let openAI = try await fixture.client.send("GET", "/api/streams/\(id)?dialect=openai")
    #expect(openAI.body.contains(#""delta":{"reasoning_content":"Let me "}"#), "\(openAI)")
  }

  @Test("A completion in JSON has the calls, log probabilities, every choice and the details of the usage")
  func json() async throws {
    let usage =
      #"{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}"#
    let called = try await Fixture(agent).completion(["tools": [["type": "function"]]])
    #expect(
      called.json?["choices"]?.array?.first == [
        "index": 0,
        "message": [
          "role": "assistant", "content": "I look.", "refusal": .null, "reasoning_content": "Let me look.",
          "tool_calls": callObjects,
        ], "logprobs": .null, "finish_reason": "tool_calls",
      ], "\(called)")
    let choices = stream(
      [
        delta(#"{"role":"assistant","content":""}"#), delta(#"{"role":"assistant","content":""}"#, index: 1),
        delta(#"{"content":"a"}"#, more: #","logprobs":{"content":[{"token":"a","logprob":-1}]}"#),
        delta(#"{"content":"x"}"#, index: 1),
        delta(#"{"content":"b"}"#, more: #","logprobs":{"content":[{"token":"b"}]}"#),
        delta("{}", #""stop""#, more: #","stop_reason":7"#), delta(#"{"content":"y"}"#, index: 1),
        delta("{}", #""length""#, index: 1),
      ], usage: usage)
    let fixture = try Fixture(choices)
    let several = try await fixture.completion(["n": 2, "logprobs": .bool(true)])
    #expect(
      several.json?["choices"] == [
        [
          "index": 0, "message": ["role": "assistant", "content": "ab", "refusal": .null],
          "logprobs": ["content": [["token": "a", "logprob": -1], ["token": "b"]]], "finish_reason": "stop",
          "stop_reason": 7,
        ],
        [
          "index": 1, "message": ["role": "assistant", "content": "xy", "refusal": .null], "logprobs": .null,
          "finish_reason": "length",
        ],
      ], "\(several)")
    #expect(several.json?["usage"]?["prompt_tokens_details"] == ["cached_tokens": 1], "\(several)")
    let asked = try JSON(parsing: Array((fixture.upstream.requests.last?.body ?? "").utf8))
    #expect(asked["n"] == 2 && asked["logprobs"] == .bool(true), "\(asked)")
    // Other dialects show the first choice.
    let chat = try await fixture.client.send(
      "POST", "/v1/chat/completions?dialect=chat", body: ["messages": question, "n": 2, "stream": .bool(true)])
    #expect(chat.events.compactMap { $0.json?["content"]?.string }.joined() == "ab", "\(chat)")
  }

  @Test("An embedder's generator yields reasoning, refusals, calls and sources")
  func embedder() async throws {
    struct Agent: Generator {
      nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
        try await output.yield(.reasoning("hm"))
        try await output.yield("a")
        try await output.yield(.toolCall(ToolCall(index: 0, id: "c", name: "f", arguments: "{}")))
        try await output.yield(.source(url: "http://a", title: nil))
        return Completion(FinishReason(rawValue: "tool_calls"))
      }
    }
    let response = try await InMemory(generator: Agent()).client.send("POST", "/api/chat", body: ["message": "a"])
    #expect(
      response.events.map(\.data).dropLast() == [
        #"{"t":"hm"}"#, #"{"t":"a"}"#, #"{"index":0,"id":"c","name":"f","arguments":"{}"}"#, #"{"url":"http://a"}"#,
      ], "\(response)")
    #expect(response.events.last?.json?["toolCalls"] == [["id": "c", "name": "f", "arguments": "{}"]], "\(response)")
  }

  @Test("The size limit counts reasoning, calls and other choices", arguments: [true, false])
  func limits(isRedacted: Bool) async throws {
    let directory = TemporaryDirectory()
    let rules = directory.file("rules", "key  sk-[0-9]{3,9}")
    let piece = String(repeating: "x", count: 600)
    for body in [
      #"{"reasoning_content":"\#(piece)"}"#, #"{"refusal":"\#(piece)"}"#,
      #"{"tool_calls":[{"index":0,"function":{"arguments":"\#(piece)"}}]}"#,
    ] {
      let environment = ["SLUICE_MAX_ANSWER": "1K", "SLUICE_REDACT_FILE": isRedacted ? rules : ""]
      let fixture = try Fixture(stream([delta(body), delta(body), delta("{}", #""stop""#)]), environment)
      let events = try await fixture.events("events")
      #expect(events.last?.type == "error" && events.last?.json?["code"] == "upstream_error", "\(body) \(events)")
      let session = try await fixture.client.send("GET", "/api/sessions/s")
      #expect(session.status == 404, "\(session)")
    }
  }

  @Test("Everything that a model says is redacted, across deltas and behind the escapes of arguments")
  func redaction() async throws {
    let directory = TemporaryDirectory()
    let rules = directory.file("rules", "mail  [a-z]{1,20}@[a-z]{1,20}")
    let body = stream([
      delta(#"{"reasoning_content":"to qada@","reasoning":"to qada@"}"#),
      delta(#"{"reasoning_content":"qhome.","reasoning":"qhome."}"#), delta(#"{"content":"See qbob"}"#),
      delta(
        #"{"content":"@qwork.","reasoning_details":[{"text":"qbob@qwork"}]}"#,
        more: #","logprobs":{"content":[{"token":"qbob@qwork"}]}"#),
      delta(#"{"refusal":"No, qcy@"}"#), delta(#"{"refusal":"qsea."}"#),
      delta(#"{"content":[{"type":"text","text":" qdan@"},{"type":"thinking","thinking":" qeve@qden"}]}"#),
      delta(#"{"content":[{"type":"text","text":"qinn"}]}"#),
      delta(
        #"{"tool_calls":[{"index":0,"id":"c0","type":"function","function":{"name":"send","arguments":"{\"to\":\"qfay\\u00"}}]}"#
      ),
      delta(#"{"tool_calls":[{"index":0,"function":{"arguments":"40qlab\", \"n\": 1}"}}]}"#),
      delta(#"{"annotations":[{"type":"url_citation","url_citation":{"url":"http://x","title":"qgil@qbar"}}]}"#),
      delta(#"{"role":"assistant","content":"qhal@"}"#, index: 1), delta(#"{"content":"qzoo"}"#, #""stop""#, index: 1),
      delta("{}", #""stop""#),
    ])
    let names = [
      "qada", "qbob", "qcy@", "qdan", "qeve", "qfay", "qgil", "qhal", "qhome", "qwork", "qsea", "qinn", "qden", "qlab",
      "qzoo",
    ]
    for dialect in ["openai", "events", "ui", "chat", "chunks", "deltas"] {
      for endpoint in ["/api/chat", "/v1/chat/completions"] {
        let fixture = try Fixture(body, ["SLUICE_REDACT_FILE": rules])
        let response = try await fixture.client.send(
          "POST", "\(endpoint)?dialect=\(dialect)", body: ["message": "a", "messages": question, "stream": .bool(true)])
        #expect(response.isComplete && response.status == 200, "\(response)")
        for name in names { #expect(!response.body.contains(name), "\(name) \(dialect) \(response)") }
      }
    }
    let fixture = try Fixture(body, ["SLUICE_REDACT_FILE": rules])
    let completion = try await fixture.completion(["n": 2])
    for name in names { #expect(!completion.body.contains(name), "\(name) \(completion)") }
    #expect(
      completion.json?["choices"] == [
        [
          "index": 0,
          "message": [
            "role": "assistant", "content": "See [redacted]. [redacted]", "refusal": "No, [redacted].",
            "reasoning_content": "to [redacted].[redacted] [redacted]", "reasoning": "to [redacted].",
            "tool_calls": [
              [
                "id": "c0", "type": "function",
                "function": ["name": "send", "arguments": #"{"to":"[redacted]","n":1}"#],
              ]
            ],
            "annotations": [["type": "url_citation", "url_citation": ["url": "http://x", "title": "[redacted]"]]],
          ], "logprobs": .null, "finish_reason": "stop",
        ],
        [
          "index": 1, "message": ["role": "assistant", "content": "[redacted]", "refusal": .null], "logprobs": .null,
          "finish_reason": "stop",
        ],
      ], "\(completion)")
    for name in ["logprobs", "audio"] {
      let refused = try await fixture.completion([name: .bool(true)])
      #expect(refused.status == 400 && refused.body.contains("redacted"), "\(refused)")
    }
  }

  @Test(
    "What a model says in unusual forms is redacted too",
    arguments: [
      // Twice the same call in one chunk, and members of one name.
      #"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\":\"qada@"}},{"index":0,"function":{"arguments":"qhome\"}"}}]}"#,
      #"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"qada@qhome","arguments":"{}"}}]}"#,
      #"{"tool_calls":[{"index":0,"id":"c","function":{"name":"qada@qhome","arguments":{"qada@qhome":1}}}]}"#,
      // Arguments that were cut, or are no object.
      #"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\":\"qada\\u0040qhome\",\"b"}}]}"#,
      #"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"\"qada\\u0040qhome\""}}]}"#,
      #"{"function_call":{"name":"f","arguments":"{\"a\":\"qada\\u0040qhome\"}"}}"#,
      #"{"tool_calls":[{"index":0,"id":"c","type":"custom","custom":{"name":"f","input":"qada@qhome"}}]}"#,
      #"{"annotations":[{"index":0,"url_citation":{"url":"u","title":"qada@"}},{"index":0,"url_citation":{"title":"qhome"}}]}"#,
      #"{"unknown":"qada@qhome","reasoning":{"text":"qada@qhome"}}"#, #"{"refusal":["qada@","qhome"]}"#,
    ])
  func unusualRedaction(part: String) async throws {
    let directory = TemporaryDirectory()
    let rules = directory.file("rules", "mail  [a-z]{1,20}@[a-z]{1,20}")
    let choices =
      [delta(part), delta(#"{"role":"qada@qhome"}"#, index: 1), delta("{}", #""stop""#, index: 1)]
      + [delta("{}", #""stop""#, more: #","note":"qada@qhome""#)]
    let usage = #"{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"note":"qada@qhome"}"#
    let members =
      #"{"choices":[],"object":"chat.completion.chunk","probabilities":["qada@","qhome"],"service_tier":"qada@qhome"}"#
    let body = "data: \(members)\n\n" + stream(choices, usage: usage)
    for dialect in ["openai", "events", "ui"] {
      let fixture = try Fixture(body, ["SLUICE_REDACT_FILE": rules])
      for path in ["/api/chat", "/v1/chat/completions"] {
        for isStreamed in [true, false] {
          let response = try await fixture.client.send(
            "POST", "\(path)?dialect=\(dialect)",
            body: ["message": "a", "sessionId": "s", "messages": question, "stream": .bool(isStreamed), "n": 2])
          #expect(response.isComplete && response.status == 200, "\(response)")
          #expect(!response.body.contains("qada") && !response.body.contains("qhome"), "\(dialect) \(response)")
        }
      }
      let file = try String(
        contentsOfFile: fixture.memory.directory.path + "/state/users/anonymous/sessions/s.jsonl", encoding: .utf8)
      #expect(!file.contains("qada") && !file.contains("qhome"), "\(file)")
    }
    // A rule that came later applies to what is read again.
    let later = directory.file("later", "nothing  zzz")
    let fixture = try Fixture(body, ["SLUICE_REDACT_FILE": later])
    let headers = ["Idempotency-Key": "k"]
    _ = try await fixture.events("openai", headers: headers)
    try "mail  [a-z]{1,20}@[a-z]{1,20}".write(toFile: later, atomically: true, encoding: .utf8)
    let isRedacted = await eventually(within: .seconds(10)) {
      guard let again = try? await fixture.events("openai", headers: headers) else { return false }
      return !again.contains { $0.data.contains("qada@qhome") }
    }
    #expect(isRedacted && fixture.upstream.requests.count == 1)
  }

  @Test(
    "Calls that servers send in unusual forms are one call each, complete, and stored",
    arguments: [
      // The name in pieces, and repeated.
      [
        #"{"index":0,"id":"c","function":{"name":"fi","arguments":""}}"#,
        #"{"index":0,"function":{"name":"nd","arguments":"{\"q\":1}"}}"#,
      ],
      [
        #"{"index":0,"id":"c","function":{"name":"find","arguments":"{"}}"#,
        #"{"index":0,"id":"c","function":{"name":"find","arguments":"\"q\":1}"}}"#,
      ],
      // Two elements in one chunk, an object instead of its text, no index, and elements that are none.
      [
        #"{"index":0,"id":"c","function":{"name":"find","arguments":"{"}},{"index":0,"function":{"arguments":"\"q\":1}"}}"#
      ],
      [#"{"index":0,"id":"c","function":{"name":"find","arguments":{"q":1}}},null"#],
      [#"{"id":"c","function":{"name":"find","arguments":"{"}}"#, #"{"function":{"arguments":"\"q\":1}"}}"#],
    ])
  func unusualCalls(pieces: [String]) async throws {
    let body = stream(
      pieces.map { delta(#"{"tool_calls":[\#($0)]}"#) } + [delta("{}", #""tool_calls""#)])
    let fixture = try Fixture(body)
    let expected: JSON = [["id": "c", "name": "find", "arguments": #"{"q":1}"#]]
    let events = try await fixture.events("events")
    #expect(events.last?.json?["toolCalls"] == expected, "\(events)")
    let ui = try await fixture.events("ui").compactMap(\.json)
    #expect(
      ui.contains(["type": "tool-input-available", "toolCallId": "c", "toolName": "find", "input": ["q": 1]]), "\(ui)")
    #expect(ui.count { $0["type"] == "tool-input-start" && $0["toolName"] == "find" } == 1, "\(ui)")
    let session = try await fixture.client.send("GET", "/api/sessions/s")
    #expect(session.json?["turns"]?.array?.first?["assistant"]?["toolCalls"] == expected, "\(session)")
  }

  @Test("A call without an id gets one, and calls of one index with different ids are different calls")
  func ids() async throws {
    let call = #"{"index":0,"function":{"name":"f","arguments":"{}"}}"#
    let anonymous = try Fixture(stream([delta(#"{"tool_calls":[\#(call)]}"#), delta("{}", #""tool_calls""#)]))
    for _ in 0..<2 { _ = try await anonymous.events("events") }
    #expect(anonymous.asked.contains { $0["tool_calls"]?.array?.first?["id"] == "call_0" }, "\(anonymous.asked)")
    #expect(anonymous.asked.contains { $0["tool_call_id"] == "call_0" }, "\(anonymous.asked)")
    let legacy = try Fixture(
      stream([delta(#"{"function_call":{"name":"f","arguments":"{}"}}"#), delta("{}", #""function_call""#)]))
    for _ in 0..<2 { _ = try await legacy.events("events") }
    #expect(legacy.asked.contains { $0["function_call"] == ["name": "f", "arguments": "{}"] }, "\(legacy.asked)")
    let two = ["a", "b"].map { id in
      delta(#"{"tool_calls":[{"index":0,"id":"\#(id)","function":{"name":"\#(id)","arguments":"{}"}}]}"#)
    }
    let events = try await Fixture(stream(two + [delta("{}", #""tool_calls""#)])).events("events")
    #expect(events.last?.json?["toolCalls"]?.array?.compactMap { $0["id"]?.string } == ["a", "b"], "\(events)")
  }

  @Test("Choices in unusual forms lose nothing, and an error of any of them is an error")
  func unusualChoices() async throws {
    let deep = String(repeating: "[", count: 100) + String(repeating: "]", count: 100)
    for (choices, text) in [
      ([#"{"index":0,"delta":{"content":"a"}},{"index":0,"delta":{"content":"b"}}"#], "ab"),
      ([#"{"index":0.0,"delta":{"content":"ab"}},{"index":1.0,"delta":{"content":"x"}}"#], "ab"),
      ([#"{"index":0,"delta":{"content":["a","b"]}}"#], "ab"),
      ([#"{"index":0,"delta":{"content":"ab","x":\#(deep)}}"#], "ab"),
    ] {
      let fixture = try Fixture(stream(choices + [delta("{}", #""stop""#)]))
      let events = try await fixture.events("chat")
      #expect(events.compactMap { $0.json?["content"]?.string }.joined() == text, "\(choices) \(events)")
      #expect(events.last?.json?["type"] == "complete", "\(events)")
    }
    let failed = try await Fixture(
      stream([delta(#"{"content":"a"}"#), delta("{}", #""error""#, index: 1), delta("{}", #""stop""#)])
    ).completion(["n": 2])
    #expect(failed.status == 502, "\(failed)")
  }

  @Test("A call whose arguments are deeply nested is stored and read again, live and by its key")
  func deepCalls() async throws {
    let deep = String(repeating: #"{"a":"#, count: 100) + "1" + String(repeating: "}", count: 100)
    let call = #"{"index":0,"id":"c","function":{"name":"f","arguments":\#(deep)}}"#
    let fixture = try Fixture(
      stream([delta(#"{"tool_calls":[\#(call)]}"#), delta("{}", #""tool_calls""#)]), ["SLUICE_RESUME": "60s"])
    let headers = ["Idempotency-Key": "k"]
    let response = try await fixture.client.send(
      "POST", "/api/chat", headers: headers, body: ["message": "a", "sessionId": "s"])
    let again = try await fixture.client.send(
      "GET", "/api/streams/\(response.headers["sluice-stream-id"] ?? "")")
    let replay = try await fixture.client.send(
      "POST", "/api/chat", headers: headers, body: ["message": "a", "sessionId": "s"])
    for answer in [response, again, replay] {
      #expect(answer.events.first?.json?["arguments"]?.string == deep, "\(answer)")
    }
    let session = try await fixture.client.send("GET", "/api/sessions/s")
    #expect(session.body.contains(#""name":"f""#), "\(session)")
    #expect(fixture.upstream.requests.count == 1)
  }

  @Test("Members and calls have limits, and a long call in small pieces has not")
  func sizes() async throws {
    let large = #"{"choices":[],"object":"chat.completion.chunk","KEY":"\#(String(repeating: "x", count: 900))"}"#
    let members = (0..<3).map { "data: \(large.replacing("KEY", with: "k\($0)"))\n\n" }.joined()
    let elements = (0..<2000).map { #"{"index":\#($0),"function":{}}"# }.joined(separator: ",")
    for body in [
      members + stream([delta("{}", #""stop""#)]), stream([delta(#"{"tool_calls":[\#(elements)]}"#)]),
    ] {
      let response = try await Fixture(body, ["SLUICE_MAX_ANSWER": "1K"]).completion(["stream": .bool(true)])
      #expect(response.body.contains("upstream_error"), "\(response)")
    }
    let directory = TemporaryDirectory()
    for rules in ["", directory.file("rules", "key  sk-[0-9]{3,9}")] {
      let piece = delta(#"{"tool_calls":[{"index":0,"function":{"arguments":"1234"}}]}"#)
      let start = delta(#"{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"["}}]}"#)
      let body = stream([start] + Array(repeating: piece, count: 3000) + [delta("{}", #""stop""#)])
      let fixture = try Fixture(body, ["SLUICE_MAX_ANSWER": "16K", "SLUICE_REDACT_FILE": rules])
      let events = try await fixture.events("chat")
      let arguments = events.last?.json?["tool_calls"]?.array?.first?["arguments"]?.string
      #expect(arguments?.utf8.count == 12_001, "\(events.last?.data.prefix(200) ?? "")")
    }
  }
}
