import SluiceTesting
import Testing

@testable import EventStream

/// A stream and the events that a conforming parser dispatches for it (WHATWG HTML, 9.2.6).
struct Fixture: Sendable, CustomTestStringConvertible {
  let name: String
  let stream: String
  let events: [ServerSentEvent]
  var testDescription: String { name }

  init(_ name: String, _ stream: String, _ events: [ServerSentEvent]) {
    self.name = name
    self.stream = stream
    self.events = events
  }
}

extension EventStreamParser {
  fileprivate mutating func events(in bytes: [UInt8]) throws(TooLong) -> [ServerSentEvent] {
    try events(in: bytes.span)
  }
}

private let fixtures: [Fixture] = [
  Fixture("LF", "data: a\n\ndata: b\n\n", [.init(data: "a"), .init(data: "b")]),
  Fixture("CRLF", "event: x\r\ndata: a\r\n\r\n", [.init(type: "x", data: "a")]),
  Fixture("CR", "data: a\r\rdata: b\r\r", [.init(data: "a"), .init(data: "b")]),
  Fixture(
    "mixed line ends", "data: a\r\n\ndata: b\n\rdata: c\r\r\n", [.init(data: "a"), .init(data: "b"), .init(data: "c")]),
  Fixture("several data lines", "data: a\ndata\ndata: b\n\n", [.init(data: "a\n\nb")]),
  Fixture("one space is dropped, not two", "data:  a\ndata:b\n\n", [.init(data: " a\nb")]),
  Fixture("a colon in the value", "data: a: b\n\n", [.init(data: "a: b")]),
  Fixture("comments", ": hello\n:\ndata: a\n: more\n\n:\n\n", [.init(data: "a")]),
  Fixture("no data, no event", "event: x\n\nid: 1\n\ndata: a\n\n", [.init(data: "a", lastEventID: "1")]),
  Fixture("empty data is data", "data\n\ndata:\n\n", [.init(data: ""), .init(data: "")]),
  Fixture(
    "the id stays", "id: 7\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
    [
      .init(data: "a", lastEventID: "7"), .init(data: "b", lastEventID: "7"), .init(data: "c"),
    ]),
  Fixture("an id with NUL does not count", "id: 1\n\nid: 2\u{0}\ndata: a\n\n", [.init(data: "a", lastEventID: "1")]),
  Fixture("retry and unknown fields", "retry: 10\nfoo: bar\ndata: a\n\n", [.init(data: "a")]),
  Fixture(
    "the type is the block's own", "event: x\ndata: a\n\ndata: b\n\n", [.init(type: "x", data: "a"), .init(data: "b")]),
  Fixture("a BOM", "\u{FEFF}data: a\n\n", [.init(data: "a")]),
  Fixture("one BOM only", "\u{FEFF}\u{FEFF}data: a\n\ndata: b\n\n", [.init(data: "b")]),
  Fixture("a cut block is dropped", "data: a\n\ndata: b\n", [.init(data: "a")]),
  Fixture("no line end but CR and LF", "data: a\u{2028}b\u{85}c\u{0B}d\n\n", [.init(data: "a\u{2028}b\u{85}c\u{0B}d")]),
  Fixture("characters of four bytes", "data: 𝄞🎧\n\n", [.init(data: "𝄞🎧")]),
  Fixture("half a BOM is data", "\u{EF}\n\ndata: a\n\n", [.init(data: "a")]),
]

@Suite("Event stream parser")
struct ParserTests {
  @Test("The parser dispatches the events of the standard at every split of the bytes", arguments: fixtures)
  func splits(fixture: Fixture) throws {
    let bytes = Array(fixture.stream.utf8)
    for split in 0...bytes.count {
      var parser = EventStreamParser()
      let events = try parser.events(in: Array(bytes[..<split])) + parser.events(in: Array(bytes[split...]))
      #expect(events == fixture.events, "split at \(split)")
    }
  }

  @Test("The parser dispatches the same events byte by byte", arguments: fixtures)
  func bytewise(fixture: Fixture) throws {
    var parser = EventStreamParser()
    var events: [ServerSentEvent] = []
    for byte in fixture.stream.utf8 { events += try parser.events(in: [byte]) }
    #expect(events == fixture.events)
  }

  @Test("An event over the size limit is rejected, whether it has one line or many")
  func limit() {
    for chunk in ["data: " + String(repeating: "x", count: 2000), String(repeating: "data: xxxxxxxx\n", count: 200)] {
      var parser = EventStreamParser(maximumEventBytes: 1000)
      #expect(throws: EventStreamParser.TooLong(limit: 1000)) {
        for byte in chunk.utf8 { _ = try parser.events(in: [byte]) }
      }
    }
  }

  @Test("Random bytes produce the same events however they are split", arguments: 0..<200)
  func randomBytes(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let alphabet = Array("data: event:id:\r\n\r\n\n\0\u{FEFF}x".utf8) + [0xFF, 0xEF, 0xBB]
    let bytes = (0..<500).map { _ in alphabet.randomElement(using: &random) ?? 0 }
    var complete = EventStreamParser()
    let expected = try complete.events(in: bytes)
    var parser = EventStreamParser()
    var events: [ServerSentEvent] = []
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = Int.random(in: 1...min(17, rest.count), using: &random)
      events += try parser.events(in: Array(rest.prefix(count)))
      rest = rest.dropFirst(count)
    }
    #expect(events == expected, "seed \(seed)")
  }
}

@Suite("Event stream encoder")
struct EncoderTests {
  @Test("A parser reads the encoded text back, with every line ending as LF", arguments: 0..<200)
  func roundTrip(seed: Int) throws {
    var random = SeededGenerator(seed: UInt64(seed))
    let alphabet = ["a", " ", ":", "\n", "\r", "\r\n", "\u{2028}", "𝄞", "\0", "data:", "\u{FEFF}"]
    let text = (0..<Int.random(in: 0...40, using: &random)).map { _ in alphabet.randomElement(using: &random) ?? "" }
      .joined()
    var buffer: [UInt8] = []
    EventStreamEncoder.encode(event: "token", data: Array(text.utf8).span, into: &buffer)
    var parser = EventStreamParser()
    let events = try parser.events(in: buffer)
    #expect(events.count == 1, "seed \(seed)")
    // Normalizes bytes: a Swift string treats CRLF as one character, and merges combining scalars into others.
    var expected: [UInt8] = []
    for byte in text.utf8 {
      if byte == 0x0A, expected.last == 0x0D { expected.removeLast() }
      expected.append(byte)
    }
    let data = String(decoding: expected.map { $0 == 0x0D ? 0x0A : $0 }, as: UTF8.self)
    #expect(events.first?.data == data, "seed \(seed)")
    #expect(events.first?.type == "token")
  }

  @Test("A heartbeat between events is not dispatched as an event")
  func heartbeat() throws {
    var parser = EventStreamParser()
    let bytes = Array("data: a\n\n".utf8) + EventStreamEncoder.heartbeat + Array("data: b\n\n".utf8)
    #expect(try parser.events(in: bytes).map(\.data) == ["a", "b"])
  }
}
