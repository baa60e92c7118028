import EventStream
import JSON

@testable import FastCGI
@testable import Sluice
@testable import Upstream
@testable import WebSocket

/// libFuzzer with the arguments of this program. The first byte of an input selects the parser for the remaining bytes.
@main
struct Fuzz {
  static func main() {
    var count = CommandLine.argc
    var arguments: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv
    _ = unsafe runLibFuzzer(&count, &arguments) { unsafe fuzzOneInput($0, $1) }
  }
}

/// Passes one input to the selected parser. libFuzzer also looks the function up by this symbol name.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzOneInput(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  // Safe: libFuzzer keeps the bytes alive during the call.
  let bytes = unsafe Array(UnsafeBufferPointer(start: start, count: count))
  guard let choice = bytes.first else { return 0 }
  parsers[Int(choice) % parsers.count](Array(bytes.dropFirst()))
  return 0
}

/// The entry point of libFuzzer (llvm-project, compiler-rt/lib/fuzzer/FuzzerDriver.cpp).
@_silgen_name("LLVMFuzzerRunDriver")
private func runLibFuzzer(
  _ count: UnsafeMutablePointer<CInt>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>?>,
  _ try: @convention(c) (UnsafePointer<UInt8>?, Int) -> CInt
) -> CInt

private let parsers: [@Sendable ([UInt8]) -> Void] = [
  json, eventStream, completion, records, query, token, redaction, files, response, frames, handshake,
]

private func json(_ bytes: [UInt8]) {
  guard let json = try? JSON(parsing: bytes) else { return }
  let again = try? JSON(parsing: json.encoded)
  precondition(again == json, "the encoded JSON parses differently")
}

private func frames(_ bytes: [UInt8]) {
  var (whole, parts): ([UInt8], [UInt8]) = ([], [])
  guard let complete = FrameReader(maximumMessageBytes: 1000), let reader = FrameReader(maximumMessageBytes: 1000)
  else {
    preconditionFailure("libwslay cannot be loaded")
  }
  let expected = complete.read(bytes.span, output: &whole)
  var events: [FrameReader.Event] = []
  for byte in bytes { events += reader.read([byte].span, output: &parts) }
  // An invalid reason of a close frame is found with its last byte at the latest, and one with two faults is refused for
  // either of them.
  let isPending = expected.last == .violation && events == expected.dropLast()
  precondition(
    isPending || (events == expected && whole.suffix(4).prefix(2) == parts.suffix(4).prefix(2)),
    "\(bytes) gives \(events) \(parts) byte by byte, and \(expected) \(whole) otherwise")
  for case .text(let text) in events { _ = try? WebSocketMessage.parse(text) }
}

private func handshake(_ bytes: [UInt8]) {
  var parser = HandshakeParser()
  guard case .complete(let request, let rest) = parser.read(bytes.span) else { return }
  precondition(rest.count < bytes.count)
  _ = request.issue
  _ = request.acceptance(subprotocol: nil)
}

private func eventStream(_ bytes: [UInt8]) {
  var complete = EventStreamParser(maximumEventBytes: 1000)
  let expected = try? complete.events(in: bytes.span)
  var parser = EventStreamParser(maximumEventBytes: 1000)
  var events: [ServerSentEvent]? = []
  for byte in bytes {
    guard let more = try? parser.events(in: [byte].span) else {
      events = nil
      break
    }
    events?.append(contentsOf: more)
  }
  precondition(events == nil || expected == nil || events == expected, "the result differs when fed byte by byte")
}

private func completion(_ bytes: [UInt8]) {
  var reader = CompletionReader(chunks: ChunkParser())
  let redactor = ChunkRedactor(RedactionRules(parsing: "a  [a-c]{1,9}x").rules)
  var dialects = DialectKind.builtIn.map { $0.type.init(StreamMetadata(messageID: "m")) }
  var (joined, records) = (OutputChunk(), Records())
  func take(_ chunk: OutputChunk) {
    joined.join(chunk)
    precondition(OutputChunk(json: chunk.json) == chunk, "a chunk that is kept differs")
    _ = try? redactor.feed(chunk)
    for index in dialects.indices { dialects[index].encode(chunk, into: &records) }
  }
  try? reader.feed(bytes.span, emit: { _ in }, emitChunk: take)
  let result = GenerationResult(messageID: "m", completion: (try? reader.completion()) ?? Completion(), more: joined)
  for index in dialects.indices { dialects[index].encode(.completed(result), into: &records) }
  _ = try? redactor.finish()
  precondition(String(validating: records.bytes, as: UTF8.self) != nil, "a record is not UTF-8")
}

private func response(_ bytes: [UInt8]) {
  let whole = body(of: [bytes])
  precondition(whole == body(of: bytes.map { [$0] }), "the result differs when fed byte by byte")
}

/// Returns the body of an HTTP response and whether it is complete, or nil if it is malformed.
private func body(of parts: [[UInt8]]) -> [UInt8]? {
  var parser = HTTPResponseParser()
  var body: [UInt8] = []
  do {
    for part in parts {
      var offset = 0
      part: while true {
        switch try parser.next(part.span, at: &offset) {
        case .head: break
        case .body(let range): body += part[range]
        case .incomplete, .end: break part
        }
      }
    }
  } catch { return nil }
  return body + [parser.isReusable ? 1 : 0, parser.finish() ? 1 : 0]
}

private func records(_ bytes: [UInt8]) {
  var complete = RequestRecords(maximumParameterBytes: 200, maximumBodyBytes: 200)
  _ = complete.feed(bytes.span)
  var chunked = RequestRecords(maximumParameterBytes: 200, maximumBodyBytes: 200)
  for byte in bytes { _ = chunked.feed([byte].span) }
  precondition(
    complete.status == chunked.status && complete.body == chunked.body, "the result differs when fed byte by byte")
  if complete.status == .complete { precondition(complete.head.count >= 24) }
}

private func query(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  let request = Request(parameters: ["QUERY_STRING": text, "REQUEST_URI": text, "HTTP_ORIGIN": text])
  _ = (request.path, request.query("message"), request.header(text), try? Page(request))
  _ = PathPattern("/a/{b}").match(RequestPath(text, maximumSegments: 4))
  if let user = User(text) { precondition(!user.directoryName.contains("/") && !user.directoryName.contains(".")) }
  if let value = FieldValue(text) { precondition(!value.description.contains("\n")) }
}

private func token(_ bytes: [UInt8]) {
  let keys = JWTKeys(parsing: Array(bytes.prefix(bytes.count / 2)))
  let verifier = JWTVerifier(keys: WatchedFile("/dev/null") { _ in keys }, issuer: nil, audience: nil)
  _ = try? verifier.user(of: String(decoding: bytes.suffix(bytes.count - bytes.count / 2), as: UTF8.self), keys: keys)
}

private func redaction(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  let rules = RedactionRules(parsing: text).rules + usual.rules
  let complete = Redactor(rules)
  guard let expected = try? complete.feed(text.utf8Span.span), let end = try? complete.finish() else { return }
  let redactor = Redactor(rules)
  var found: [UInt8] = []
  for scalar in text.unicodeScalars {
    guard let more = try? redactor.feed(String(scalar).utf8Span.span) else { return }
    found += more
  }
  guard let rest = try? redactor.finish() else { return }
  precondition(found + rest == expected + end, "the redaction differs when fed character by character")
}

private let usual = RedactionRules(parsing: "a  [a-z]{1,9}@[a-z]{2,9}\nb  \\b\\d{4,8}\\b  #\n")

private func files(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  _ = (TokensFile(parsing: text).entries.count, OnboardingScript(parsing: text)?.steps.count)
  _ = (Turn(line: bytes), Replay(file: bytes), UnsavedTurns.Entry(file: bytes), OnboardingState(file: bytes))
  _ = (StoredReport(file: bytes), StoredReport.summary(of: bytes))
  _ = try? ReportText.object(in: text, finishReason: .stop)
}
