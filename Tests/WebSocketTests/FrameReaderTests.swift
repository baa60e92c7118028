import Bytes
import SluiceTesting
import Testing
import WebSocket

/// A frame as a client sends it (RFC 6455, 5.2).
private struct ClientFrame {
  var opcode: UInt8
  var payload: [UInt8] = []
  var isFinal = true
  var reserved: UInt8 = 0
  var isMasked = true
  /// The form of the length: 7, 16 or 64 bits; nil for the shortest.
  var lengthBits: Int?
  /// The length to announce instead of the payload's.
  var announcedLength: UInt64?

  static func text(_ text: String, isFinal: Bool = true) -> ClientFrame {
    ClientFrame(opcode: 1, payload: Array(text.utf8), isFinal: isFinal)
  }
  static func continuation(_ payload: [UInt8], isFinal: Bool = true) -> ClientFrame {
    ClientFrame(opcode: 0, payload: payload, isFinal: isFinal)
  }
  static func close(_ code: UInt16, _ reason: [UInt8] = []) -> ClientFrame {
    ClientFrame(opcode: 8, payload: [UInt8(code >> 8), UInt8(code & 0xFF)] + reason)
  }

  var bytes: [UInt8] {
    var bytes = [(isFinal ? 0x80 : 0) | reserved << 4 | opcode]
    let length = announcedLength ?? UInt64(payload.count)
    let bits = lengthBits ?? (length < 126 ? 7 : length <= 0xFFFF ? 16 : 64)
    bytes.append((isMasked ? 0x80 : 0) | (bits == 7 ? UInt8(length) : bits == 16 ? 126 : 127))
    if bits > 7 {
      for index in (0..<bits / 8).reversed() { bytes.append(UInt8(truncatingIfNeeded: length >> (8 * index))) }
    }
    guard isMasked else { return bytes + payload }
    let mask: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
    return bytes + mask + payload.enumerated().map { $1 ^ mask[$0 % 4] }
  }
}

/// A row of the table: what a client sends, and what it gets.
private struct Row: CustomStringConvertible {
  let description: String
  let frames: [ClientFrame]
  let events: [FrameReader.Event]
  /// The frames that are sent in response, as bytes.
  var output: [UInt8] = []

  init(_ description: String, _ frames: [ClientFrame], _ events: [FrameReader.Event], output: [UInt8] = []) {
    self.description = description
    self.frames = frames
    self.events = events
    self.output = output
  }
}

private func closeFrame(_ code: UInt16) -> [UInt8] { [0x88, 2, UInt8(code >> 8), UInt8(code & 0xFF)] }

private let long = String(repeating: "é", count: 100)

private let table: [Row] = [
  Row("A masked text", [.text("Hello")], [.text(Array("Hello".utf8))]),
  Row("An empty text", [.text("")], [.text([])]),
  Row("Two texts", [.text("a"), .text("b")], [.text([97]), .text([98])]),
  Row("A text of 126 bytes or more", [.text(long)], [.text(Array(long.utf8))]),
  Row(
    "A text with a 64-bit length", [.text(String(repeating: "x", count: 70_000))],
    [.text([UInt8](repeating: 120, count: 70_000))]),
  Row(
    "A fragmented text", [.text("a", isFinal: false), .continuation([98], isFinal: false), .continuation([99])],
    [.text([97, 98, 99])]),
  Row(
    "An empty last fragment", [.text("a", isFinal: false), .continuation([])], [.text([97])]),
  Row(
    "A ping between fragments",
    [.text("a", isFinal: false), ClientFrame(opcode: 9, payload: [1, 2]), .continuation([98])], [.text([97, 98])],
    output: [0x8A, 2, 1, 2]),
  Row("A ping without payload", [ClientFrame(opcode: 9)], [], output: [0x8A, 0]),
  Row(
    "A ping with 125 bytes", [ClientFrame(opcode: 9, payload: [UInt8](repeating: 7, count: 125))], [],
    output: [0x8A, 125] + [UInt8](repeating: 7, count: 125)),
  Row("A pong", [ClientFrame(opcode: 10, payload: [1])], [.pong]),
  Row(
    "A character split between fragments",
    [ClientFrame(opcode: 1, payload: [0xF0, 0x9F], isFinal: false), .continuation([0x98, 0x80])],
    [.text([0xF0, 0x9F, 0x98, 0x80])]),
  Row("A binary message", [ClientFrame(opcode: 2, payload: [1])], [.binary]),
  Row("A close with a code", [.close(1000)], [.close], output: closeFrame(1000)),
  Row("A close with a code of an application", [.close(4000)], [.close], output: closeFrame(4000)),
  Row(
    "A close with a reason", [.close(1001, Array("bye".utf8))], [.close],
    output: [0x88, 5, 0x03, 0xE9] + "bye".utf8),
  Row("A close without a code", [ClientFrame(opcode: 8)], [.close], output: [0x88, 0]),
  Row("Nothing is read after a close", [.close(1000), .text("a")], [.close], output: closeFrame(1000)),
  Row("A close with one byte", [ClientFrame(opcode: 8, payload: [3])], [.violation], output: closeFrame(1002)),
  Row("A close with a reserved code", [.close(1005)], [.violation], output: closeFrame(1002)),
  Row("A close with a code below 1000", [.close(999)], [.violation], output: closeFrame(1002)),
  Row("A close with a code that is not assigned", [.close(2000)], [.violation], output: closeFrame(1002)),
  Row("A close with a reason that is not UTF-8", [.close(1000, [0xFF])], [.violation], output: closeFrame(1007)),
  Row(
    "A frame without a mask", [ClientFrame(opcode: 1, payload: [97], isMasked: false)], [.violation],
    output: closeFrame(1002)),
  Row("Reserved bit 1", [ClientFrame(opcode: 1, reserved: 4)], [.violation], output: closeFrame(1002)),
  Row("Reserved bit 2", [ClientFrame(opcode: 1, reserved: 2)], [.violation], output: closeFrame(1002)),
  Row("Reserved bit 3", [ClientFrame(opcode: 9, reserved: 1)], [.violation], output: closeFrame(1002)),
  Row("A reserved data opcode", [ClientFrame(opcode: 3)], [.violation], output: closeFrame(1002)),
  Row("A reserved control opcode", [ClientFrame(opcode: 11)], [.violation], output: closeFrame(1002)),
  Row("A continuation of nothing", [.continuation([97])], [.violation], output: closeFrame(1002)),
  Row(
    "A text within a fragmented text", [.text("a", isFinal: false), .text("b")], [.violation],
    output: closeFrame(1002)),
  Row(
    "A fragmented ping", [ClientFrame(opcode: 9, isFinal: false)], [.violation], output: closeFrame(1002)),
  Row(
    "A ping of 126 bytes", [ClientFrame(opcode: 9, payload: [UInt8](repeating: 0, count: 126))], [.violation],
    output: closeFrame(1002)),
  Row(
    "A 16-bit length where 7 bits suffice", [ClientFrame(opcode: 1, payload: [97], lengthBits: 16)], [.violation],
    output: closeFrame(1002)),
  Row(
    "A 64-bit length where 16 bits suffice",
    [ClientFrame(opcode: 1, payload: [UInt8](repeating: 97, count: 200), lengthBits: 64)], [.violation],
    output: closeFrame(1002)),
  Row(
    "A 64-bit length with the highest bit set", [ClientFrame(opcode: 1, announcedLength: 1 << 63)], [.violation],
    output: closeFrame(1002)),
  Row("Invalid UTF-8", [ClientFrame(opcode: 1, payload: [0xC0, 0xAF])], [.violation], output: closeFrame(1007)),
  Row("A surrogate", [ClientFrame(opcode: 1, payload: [0xED, 0xA0, 0x80])], [.violation], output: closeFrame(1007)),
  Row(
    "An incomplete character", [ClientFrame(opcode: 1, payload: [0xE2, 0x82])], [.violation], output: closeFrame(1007)),
  Row(
    "Invalid UTF-8 in the second fragment", [.text("a", isFinal: false), .continuation([0xFF])], [.violation],
    output: closeFrame(1007)),
  Row(
    "A message over the limit", [ClientFrame(opcode: 1, payload: [97], announcedLength: 100_001)], [.violation],
    output: closeFrame(1009)),
  Row(
    "A message of too many fragments",
    [.text("a", isFinal: false)]
      + (0..<4097).map { _ in .continuation([97], isFinal: false) } + [.continuation([97])],
    [.violation], output: closeFrame(1009)),
  Row(
    "Fragments over the limit together",
    [
      .text(String(repeating: "x", count: 60_000), isFinal: false),
      ClientFrame(opcode: 0, payload: [97], announcedLength: 60_000),
    ],
    [.violation], output: closeFrame(1009)),
]

@Suite("Frames of a WebSocket")
struct FrameReaderTests {
  private func read(_ parts: [ArraySlice<UInt8>]) throws -> (events: [FrameReader.Event], output: [UInt8]) {
    let reader = try #require(FrameReader(maximumMessageBytes: 100_000))
    var (events, output): ([FrameReader.Event], [UInt8]) = ([], [])
    for part in parts {
      let part = Array(part)
      events += reader.read(part.span, output: &output)
    }
    return (events, output)
  }

  @Test("Each form of a frame has its event and its response, at every split")
  func everySplit() throws {
    for row in table {
      let bytes = row.frames.flatMap(\.bytes)
      let whole = try read([bytes[...]])
      #expect(whole.events == row.events && whole.output == row.output, "\(row): \(whole)")
      // Of a long message the ends are enough.
      for split in 1..<max(1, bytes.count) where split < 400 || split > bytes.count - 20 {
        let parts = try read([bytes[..<split], bytes[split...]])
        #expect(parts.events == row.events && parts.output == row.output, "\(row), split at \(split): \(parts)")
      }
      let single = try read(bytes.prefix(1000).indices.map { bytes[$0...$0] } + [bytes.dropFirst(1000)])
      #expect(single.events == row.events && single.output == row.output, "\(row), byte by byte: \(single)")
    }
  }

  @Test("A server's frames have the shortest form of their length and no mask")
  func headers() {
    for (count, expected): (Int, [UInt8]) in [
      (0, [0x81, 0]), (125, [0x81, 125]), (126, [0x81, 126, 0, 126]), (0xFFFF, [0x81, 126, 0xFF, 0xFF]),
      (0x1_0000, [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
      var output: [UInt8] = []
      Frame.appendHeader(.text, payloadBytes: count, to: &output)
      #expect(output == expected, "\(count)")
    }
    var output: [UInt8] = []
    Frame.appendClose(.policyViolation, to: &output)
    #expect(output == closeFrame(1008))
  }

  @Test("Mutated frames neither crash the reader nor make it send more than it may")
  func mutations() throws {
    for seed in UInt64(0)..<500 {
      var random = SeededGenerator(seed: seed)
      let rows = (0..<3).compactMap { _ in table.randomElement(using: &random) }
      let bytes = rows.flatMap { $0.frames.flatMap(\.bytes).prefix(300) }.mutated(&random)
      let whole = try read([bytes[...]])
      let parts = try read(bytes.splitIntoChunks(&random).map { $0[...] })
      // Pongs that precede a violation are sent only if they were not received together with it.
      #expect(
        whole.events == parts.events && whole.output.suffix(4) == parts.output.suffix(4),
        "seed \(seed): \(whole) \(parts)")
      // A client gets at most what it has sent, and one close frame.
      #expect(whole.output.count <= bytes.count + 4, "seed \(seed): \(whole)")
    }
  }
}
