import EventStream
import FastCGI
import Foundation
import JSON
import SluiceTesting
import Testing

@testable import Sluice
@testable import Upstream

/// Malformed external input never traps. `Tests/run --fuzz` covers more of it.
@Suite("Malformed input")
struct FuzzTests {
  @Test("A mutated event stream is parsed identically however it is split", arguments: 0..<300)
  func eventStream(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let stream = Array(
      "id: 1\nevent: a\r\ndata: x\rdata:y\n\n: c\n\u{FEFF}data\nretry: 5\nid: \0\n\ndata: 🎧\r\n\r\n".utf8)
    let bytes = stream.mutated(&random)
    var complete = EventStreamParser(maximumEventBytes: 1000)
    let expected = try? complete.events(in: bytes.span)
    var parser = EventStreamParser(maximumEventBytes: 1000)
    var events: [ServerSentEvent] = []
    for chunk in bytes.splitIntoChunks(&random) { events += (try? parser.events(in: chunk.span)) ?? [] }
    #expect(events == expected, "seed \(seed)")
  }

  @Test("A mutated body, query, header or path never traps", arguments: 0..<300)
  func fields(seed: Int) async {
    var random = SeededGenerator(seed: UInt64(seed))
    let body = Array(
      #"{"message":"a\u00e9🎧","sessionId":"s","n":1.5e3,"messages":[{"role":"user","content":[{"type":"text"}]}]}"#.utf8
    )
    let text = String(
      decoding: Array("a=%41+%zz&message=%F0%9F&token=x&=&&limit=1".utf8).mutated(&random), as: UTF8.self)
    let request = Request(
      parameters: [
        "REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json", "QUERY_STRING": text, "REQUEST_URI": "/" + text,
      ],
      body: body.mutated(&random))
    _ = reading(request.body)
    _ = (request.path, request.query("message"), request.header(text))
    _ = try? Page(request)
    _ = PathPattern("/{a}/b").match(RequestPath(text, maximumSegments: 4))
    _ = try? ReportText.object(in: String(decoding: request.body, as: UTF8.self), finishReason: .stop)
  }

  private func reading(_ bytes: [UInt8]) -> JSON? { try? JSON(parsing: bytes) }

  @Test("A mutated token authenticates no user", arguments: 0..<300)
  func tokens(seed: Int) throws {
    // The token and its key are from RFC 7515, A.1.
    let key =
      #"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#
    let token =
      "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    let keys = JWTKeys(parsing: Array(key.utf8))
    #expect(keys.issues.isEmpty && keys.keys[0].payload(of: token)?.isEmpty == false)
    var random = SeededGenerator(seed: UInt64(seed))
    let changed = String(decoding: Array(token.utf8).mutated(&random), as: UTF8.self)
    // The last character of the signature has unused bits, so a token that differs only there can still be valid.
    guard changed.prefix(token.count - 1) != token.prefix(token.count - 1) else { return }
    let verifier = JWTVerifier(keys: WatchedFile("/dev/null") { _ in keys }, issuer: nil, audience: nil)
    #expect(
      try verifier.user(of: changed, keys: keys, now: Date(timeIntervalSince1970: 1_300_819_000)) == nil, "seed \(seed)"
    )
    _ = JWTKeys(parsing: Array(key.utf8).mutated(&random))
  }

  @Test("A mutated pattern is rejected or usable, and matching it terminates", arguments: 0..<300)
  func patterns(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let file = Array("a  (?:[a-z]+|\\d{2,5})*x(?=é)\\b\t#\nb  (?<n>a)\\k<n>(?i:B)+?[^\\s]{3}\n".utf8).mutated(&random)
    let rules = RedactionRules(parsing: String(decoding: file, as: UTF8.self)).rules
    let redactor = Redactor(rules)
    let text = Array("abc 12345 xé aaB ccc\n\u{0}🎧 abcabcabcabc1".utf8).mutated(&random)
    for chunk in text.splitIntoChunks(&random) { _ = try? redactor.feed(String(decoding: chunk, as: UTF8.self)) }
    _ = try? redactor.finish() as String
  }

  private static let rules = RedactionRules(parsing: "a  [a-c]{1,9}x").rules

  @Test("A mutated chunk never traps, and is the same when it is kept, in every dialect", arguments: 0..<150)
  func chunks(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let numbers = [
      "0", "1", "-1", "1.0", "1e3", "9223372036854775807", "-9223372036854775808", "1e400", "null", "\"0\"",
    ]
    func number() -> String { numbers.randomElement(using: &random) ?? "0" }
    let deltas = [
      #""reasoning_content":"a\u0041é","refusal":"no""#,
      #""content":["a",{"type":"thinking","thinking":[{"text":"b"}]}]"#,
      #""tool_calls":[{"index":\#(number()),"id":"c","function":{"name":"f","arguments":"{\"a\":"}},{"index":\#(number()),"function":{"arguments":{}}}]"#,
      #""annotations":[{"index":\#(number()),"url_citation":{"url":"u"}}],"function_call":{"arguments":"x"}"#,
    ]
    let body = (0..<6).map { _ in
      let delta = deltas.randomElement(using: &random) ?? ""
      return #"data: {"choices":[{"index":\#(number()),"delta":{\#(delta)},"finish_reason":null,"x":{}}],"y":[1],"#
        + #""usage":{"prompt_tokens":\#(number()),"completion_tokens":1,"total_tokens":\#(number()),"z":{"a":1}}}"#
        + "\n\n"
    }.joined()
    let bytes = seed % 3 == 0 ? Array(body.utf8) : Array(body.utf8).mutated(&random)
    var reader = CompletionReader(chunks: ChunkParser(), choices: seed % 2 + 1)
    let redactor = ChunkRedactor(Self.rules)
    var dialects = DialectKind.builtIn.map { $0.type.init(StreamMetadata(messageID: "m")) }
    var (joined, records) = (OutputChunk(), Records())
    func take(_ chunk: OutputChunk) {
      joined.join(chunk)
      #expect(OutputChunk(json: chunk.json) == chunk, "seed \(seed)")
      _ = try? redactor.feed(chunk)
      for index in dialects.indices { dialects[index].encode(chunk, into: &records) }
    }
    try? reader.feed(bytes.span, emit: { _ in }, emitChunk: take)
    let result = GenerationResult(messageID: "m", completion: (try? reader.completion()) ?? Completion(), more: joined)
    for index in dialects.indices { dialects[index].encode(.completed(result), into: &records) }
    _ = try? redactor.finish()
    #expect(String(validating: records.bytes, as: UTF8.self) != nil, "seed \(seed)")
  }

  @Test("A mutated configuration or state file never traps", arguments: 0..<200)
  func files(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let tokens = Array("alice:\(Digest(of: "a").hex):2027-01-01\n# x\nbob:\(Digest(of: "b").hex)\r\n".utf8)
    _ = TokensFile(parsing: String(decoding: tokens.mutated(&random), as: UTF8.self)).user(of: "a")
    _ = OnboardingScript(parsing: String(decoding: Array("x\n# a\r\nb\n#\n##".utf8).mutated(&random), as: UTF8.self))
    let replay = Replay(request: "r", messageID: "m", text: "t", result: GenerationResult(messageID: "m"))
    _ = Replay(file: replay.file.mutated(&random))
    let turn = Turn(
      id: "i", at: "t", user: "u", assistant: "a",
      completion: .init(usage: .init(promptTokens: 1, completionTokens: 2, totalTokens: 3)), model: "m")
    _ = Turn(line: turn.line(number: 3).mutated(&random))
    _ = UnsavedTurns.Entry(file: UnsavedTurns.Entry(user: "u", .turn(turn, session: "s")).file.mutated(&random))
    _ = OnboardingState(file: OnboardingState(answers: [.init(step: "a", answer: "b")]).file.mutated(&random))
  }
}
