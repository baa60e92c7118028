import EventLoop
import EventStream
import FastCGI
import Foundation
import JSON
import SluiceTesting
import Testing
import Upstream

@testable import Sluice

/// The deltas that a model produces for a seed, each as the content of a JSON string and as the text that it encodes.
struct Speech {
  var deltas: [(json: String, text: String)] = []
  var text: String { deltas.map(\.text).joined() }

  init(seed: UInt64) {
    var random = SeededGenerator(seed: seed)
    for _ in 0..<Int.random(in: 1...12, using: &random) {
      var delta = (json: "", text: "")
      for _ in 0..<Int.random(in: 1...8, using: &random) {
        let (json, text) = Self.character(&random)
        delta.json += json
        delta.text += text
      }
      deltas.append(delta)
    }
  }

  private static func character(_ random: inout SeededGenerator) -> (String, String) {
    func escaped(_ unit: UInt16) -> String {
      let digits = String(unit, radix: 16)
      return "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    }
    switch Int.random(in: 0..<10, using: &random) {
    case 0: return ("\\n", "\n")
    case 1: return ("\\r\\n", "\r\n")
    case 2: return ("\\r", "\r")
    case 3: return ("\\u0000", "\0")
    case 4: return ("\u{2028}", "\u{2028}")
    // A lone surrogate. The letter after it prevents it from forming a pair with the next escape.
    case 5: return (escaped(UInt16.random(in: 0xD800...0xDFFF, using: &random)) + "x", "\u{FFFD}x")
    case 6: return ("\\\"data: [DONE]\\\\", "\"data: [DONE]\\")
    default:
      // Any other Unicode scalar, literal or escaped.
      while true {
        guard let scalar = Unicode.Scalar(UInt32.random(in: 0x20...0x10FFFF, using: &random)) else { continue }
        let text = String(scalar)
        if Bool.random(using: &random) { return (text.utf16.map(escaped).joined(), text) }
        return (text == "\"" || text == "\\" ? "\\" + text : text, text)
      }
    }
  }
}

/// A server whose model produces the ``Speech`` of the seed at the end of the message.
private final class Fixture {
  let services: Services
  let directory = TemporaryDirectory()
  private let upstream: ScriptedUpstream
  private let handler: RequestDispatcher
  private let reactor: Reactor

  init(on reactor: Reactor) throws {
    self.reactor = reactor
    upstream = try ScriptedUpstream { exchange in
      let body = exchange.request.body
      let seed = body.components(separatedBy: "seed ").last.flatMap { UInt64($0.prefix { $0.isNumber }) } ?? 0
      var random = SeededGenerator(seed: seed &+ 1)
      var bytes: [UInt8] = []
      for delta in Speech(seed: seed).deltas {
        let end = ["\n\n", "\r\n\r\n", "\r\r"].randomElement(using: &random) ?? "\n\n"
        bytes += Array(
          "data:\(Bool.random(using: &random) ? " " : ""){\"choices\":[{\"delta\":{\"content\":\"\(delta.json)\"}}]}\(end)"
            .utf8)
        if Bool.random(using: &random) { bytes += Array(": comment\n".utf8) }
      }
      bytes += Array("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n".utf8)
      exchange.sendHead()
      while !bytes.isEmpty {
        let count = min(bytes.count, Int.random(in: 1...200, using: &random))
        exchange.send(Array(bytes.prefix(count)))
        bytes.removeFirst(count)
      }
    }
    services = try Services(upstream: upstream.baseURL, in: directory)
    handler = RequestDispatcher(services, routes: .builtIn(services), on: reactor)
  }

  /// Returns the body of the response to a chat message.
  func chat(_ seed: UInt64, dialect: String) async throws -> [UInt8] {
    let transport = MemoryTransport(on: reactor)
    let body = JSON.object(["message": .string("seed \(seed)"), "sessionId": .string("s\(seed)-\(dialect)")]).encoded
    let request = Request(
      parameters: [
        "REQUEST_METHOD": "POST", "REQUEST_URI": "/api/chat", "QUERY_STRING": "dialect=\(dialect)",
        "CONTENT_TYPE": "application/json",
      ], body: body)
    handler.respond(request, ResponseWriter(transport, isHeadRequest: false, writeTimeout: .seconds(10)))
    for _ in 0..<10_000 where !transport.isFinished { try await reactor.sleep(for: .milliseconds(1)) }
    try #require(transport.isFinished, "seed \(seed), \(dialect): \(transport.text)")
    let bytes = Array(transport.text.utf8)
    let head = transport.text.utf8.firstRange(of: "\r\n\r\n".utf8)?.upperBound
    return head.map { Array(transport.text.utf8[$0...]) } ?? bytes
  }

  func stored(_ seed: UInt64, dialect: String) async throws -> [Turn] {
    let user = try #require(User("anonymous"))
    return try await services.store.turns(of: "s\(seed)-\(dialect)", of: user, Page()) ?? []
  }
}

@Suite("Streams")
struct StreamPropertyTests {
  /// Returns the joined text of a stream's deltas, the number of its terminal records, and whether one is the last
  /// record.
  private func read(_ events: [ServerSentEvent], _ dialect: String) throws -> (text: String, ends: Int, isLast: Bool) {
    var text = ""
    var ends: [Int] = []
    for (index, event) in events.enumerated() {
      let json = event.data == "[DONE]" ? JSON.null : try JSON(parsing: Array(event.data.utf8))
      switch dialect {
      case "events":
        if event.type == "token" { text += json["t"]?.string ?? "?" } else { ends.append(index) }
      case "deltas":
        if event.data == "[DONE]" { ends.append(index) } else if index > 0 { text += json["delta"]?.string ?? "?" }
      case "chunks":
        let isChunk = event.type == "chunk"
        #expect(json["seq"] == .integer(index), "seq of \(event)")
        if isChunk { text += json["token"]?.string ?? "?" } else { ends.append(index) }
      case "chat":
        if json["type"] == "chunk" { text += json["content"]?.string ?? "?" } else { ends.append(index) }
      case "openai":
        if event.data == "[DONE]" { ends.append(index) }
        text += json["choices"].flatMap { Self.first($0)?["delta"]?["content"]?.string } ?? ""
      default:
        if event.data == "[DONE]" { ends.append(index) }
        if json["type"] == "text-delta" { text += json["delta"]?.string ?? "?" }
      }
    }
    return (text, ends.count, ends.last == events.count - 1)
  }

  private static func first(_ json: JSON) -> JSON? {
    guard case .array(let values) = json else { return nil }
    return values.first
  }

  @Test("Every dialect streams the exact text with one terminal record, and the same text is stored")
  func everyDialect() async throws {
    try await onLoop { reactor in
      let fixture = try Fixture(on: reactor)
      for dialect in DialectKind.builtIn.map({ $0.type.name }) {
        for seed in UInt64(0)..<200 {
          let expected = Speech(seed: seed).text
          let bytes = try await fixture.chat(seed, dialect: dialect)
          var parser = EventStreamParser()
          let (text, ends, isLast) = try read(try parser.events(in: bytes.span), dialect)
          // Compares scalars, because strings that are only canonically equivalent also compare as equal.
          #expect(Array(text.unicodeScalars) == Array(expected.unicodeScalars), "seed \(seed), \(dialect)")
          #expect(ends == 1 && isLast, "seed \(seed), \(dialect): \(String(decoding: bytes, as: UTF8.self))")
          let turns = try await fixture.stored(seed, dialect: dialect)
          #expect(turns.count == 1, "seed \(seed), \(dialect)")
          #expect(
            turns.first.map { Array($0.assistant.content.unicodeScalars) } == Array(expected.unicodeScalars),
            "seed \(seed), \(dialect)")
        }
      }
    }
  }
}
