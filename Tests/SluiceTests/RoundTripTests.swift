import JSON
import Sluice
import SluiceTesting
import Testing

/// The meaning of a stream of chunks, as a client of OpenAI's API reads it: strings that grow, lists that grow, and values of
/// which the last one counts. Written without Sluice's own code for joining chunks.
private struct Meaning: Equatable {
  var texts: [String: String] = [:]
  var lists: [String: [JSON]] = [:]
  var values: [String: JSON] = [:]

  /// - Parameter chunks: objects of the type `chat.completion.chunk`, or one `chat.completion`.
  init(_ chunks: [JSON]) {
    for chunk in chunks {
      for (place, choice) in (chunk["choices"]?.array ?? []).enumerated() {
        let name = "choice \(choice["index"]?.integer ?? place)"
        for member in choice.object?.all ?? [] {
          switch member.name {
          case "index": break
          case "delta", "message": add(member.value, to: name)
          case "logprobs": add(member.value, to: name + " logprobs")
          default: values[name + " " + member.name] = member.value == .null ? nil : member.value
          }
        }
      }
      for member in chunk.object?.all ?? [] where member.value != .null {
        if ["id", "object", "created", "model", "choices", "obfuscation"].contains(member.name) { continue }
        values[member.name] = member.value
      }
    }
  }

  private mutating func add(_ json: JSON, to name: String) {
    switch json {
    case .string(let text):
      if name.hasSuffix(" id") || name.hasSuffix(" type") || name.hasSuffix(" role") {
        values[name] = json
      } else if !text.isEmpty {
        texts[name, default: ""] += text
      }
    case .object(let members):
      for member in members.all where member.name != "index" { add(member.value, to: name + " " + member.name) }
    case .array(let elements) where name.hasSuffix("tool_calls"):
      for (place, call) in elements.enumerated() { add(call, to: "\(name) \(call["index"]?.integer ?? place)") }
    case .array(let elements): if !elements.isEmpty { lists[name, default: []] += elements }
    case .null: break
    default: values[name] = json
    }
  }

  /// The lines in which this differs from another meaning.
  func difference(from other: Meaning) -> String {
    let (own, others) = (Set(lines), Set(other.lines))
    return (own.subtracting(others).map { "+ \($0)" } + others.subtracting(own).map { "- \($0)" }).sorted()
      .joined(separator: "\n")
  }

  private var lines: [String] {
    texts.map { "\($0.key): \($0.value)" }
      + lists.map { "\($0.key): \(String(decoding: JSON.array($0.value).encoded, as: UTF8.self))" }
      + values.map { "\($0.key): \(String(decoding: $0.value.encoded, as: UTF8.self))" }
  }
}

/// A seeded stream of chunks with every field that model servers send.
private struct Chunks {
  private var random: SeededGenerator
  private(set) var all: [JSON] = []
  let choices: Int
  private var calls: [Int: Int] = [:]

  init(seed: Int) {
    random = SeededGenerator(seed: UInt64(seed))
    choices = Int.random(in: 1...3, using: &random)
    for index in 0..<choices { append(["role": "assistant", "content": ""], to: index) }
    for _ in 0..<Int.random(in: 0...40, using: &random) {
      let index = Int.random(in: 0..<choices, using: &random)
      append(delta(of: index), to: index)
    }
    for index in (0..<choices).shuffled(using: &random) {
      let reason = ["stop", "length", "tool_calls", "content_filter"].randomElement(using: &random) ?? "stop"
      append([:], to: index, more: ["finish_reason": .string(reason), "stop_reason": 7])
    }
    all.append(
      chunk([], more: ["usage": ["prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": ["a": 1]]]))
  }

  private mutating func text() -> JSON {
    let pieces = ["a", "é", "🎧", "\"", "\\", "\n", "{", "}", " ", "data: ", "[DONE]", "\u{2028}", "\0"]
    let count = Int.random(in: 0...4, using: &random)
    return .string((0..<count).map { _ in pieces.randomElement(using: &random) ?? "" }.joined())
  }

  private mutating func delta(of index: Int) -> JSON.Members {
    var delta: JSON.Members = [:]
    for _ in 0..<Int.random(in: 1...3, using: &random) {
      let names = [
        "content", "content", "content", "refusal", "reasoning", "reasoning_content", "tool_calls", "list", "audio",
      ]
      switch names.randomElement(using: &random) {
      case "tool_calls": if delta["tool_calls"] == nil { delta["tool_calls"] = .array([call(of: index)]) }
      case "list": delta["annotations"] = .array([["type": "other", "text": text()]])
      case "audio": delta["audio"] = ["data": text(), "transcript": text()]
      case let name?: delta[name] = Bool.random(using: &random) ? text() : .null
      case nil: break
      }
    }
    return delta
  }

  private mutating func call(of index: Int) -> JSON {
    let count = calls[index] ?? 0
    if count == 0 || Int.random(in: 0..<4, using: &random) == 0 {
      calls[index] = count + 1
      return [
        "index": .integer(count), "id": .string("call \(index) \(count)"), "type": "function",
        "function": ["name": "f", "arguments": text()],
      ]
    }
    return ["index": .integer(Int.random(in: 0..<count, using: &random)), "function": ["arguments": text()]]
  }

  private mutating func append(_ delta: JSON.Members, to index: Int, more: JSON.Members = [:]) {
    var choice: JSON.Members = ["index": .integer(index), "delta": .object(delta), "finish_reason": .null]
    if Int.random(in: 0..<4, using: &random) == 0 {
      choice["logprobs"] = ["content": [["token": text(), "logprob": -1, "top_logprobs": []]]]
    }
    choice.merge(more)
    all.append(chunk([.object(choice)]))
  }

  private mutating func chunk(_ choices: [JSON], more: JSON.Members = [:]) -> JSON {
    var members: JSON.Members = [
      "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": "fp",
      "service_tier": "default", "choices": .array(choices),
    ]
    if Int.random(in: 0..<4, using: &random) == 0 { members["citations"] = [text()] }
    if Int.random(in: 0..<4, using: &random) == 0 { members["obfuscation"] = "xyz" }
    members.merge(more)
    return .object(members)
  }

  var body: String {
    all.map { "data: \(String(decoding: $0.encoded, as: UTF8.self))\n\n" }.joined() + "data: [DONE]\n\n"
  }
}

@Suite("Round trip")
struct RoundTripTests {
  @Test("Chunks say the same through the dialect openai, live, read again and in JSON", arguments: 0..<50)
  func meaning(seed: Int) async throws {
    let chunks = Chunks(seed: seed)
    let body = chunks.body
    let upstream = try ScriptedUpstream { $0.respond("200 OK", body, type: "text/event-stream") }
    let client = try InMemory(
      clock: SlowClock().loopClock, ["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_RESUME": "60s"]
    ).client
    let direct = Meaning(chunks.all)
    var request: JSON.Members = [
      "messages": [["role": "user", "content": "a"]], "n": .integer(chunks.choices), "stream": .bool(true),
      "stream_options": ["include_usage": .bool(true)],
    ]
    let live = try await client.send("POST", "/v1/chat/completions", body: .object(request))
    let liveMeaning = Meaning(live.events.compactMap(\.json))
    #expect(live.events.last?.data == "[DONE]")
    #expect(liveMeaning == direct, "seed \(seed)\n\(liveMeaning.difference(from: direct))")
    let id = live.headers["sluice-stream-id"] ?? ""
    let again = try await client.send("GET", "/api/streams/\(id)?dialect=openai")
    #expect(again.body == live.body, "seed \(seed)")
    request["stream"] = .bool(false)
    let whole = try await client.send("POST", "/v1/chat/completions", body: .object(request))
    let wholeMeaning = Meaning(whole.json.map { [$0] } ?? [])
    #expect(wholeMeaning == direct, "seed \(seed)\n\(wholeMeaning.difference(from: direct))")
  }
}
