import SluiceTesting
import Testing

@testable import Upstream

/// The results of a parser for one response, which do not depend on how the input was split.
private struct Transcript: Equatable {
  var heads: [HTTPResponseHead] = []
  var body: [UInt8] = []
  var isComplete = false
  var isReusable = false
  /// The number of bytes that follow the response.
  var surplus = 0
  var malformed: String?

  /// - Parameter closes: whether the connection is closed after the last part.
  init(_ parts: [[UInt8]], closes: Bool = false) {
    var parser = HTTPResponseParser()
    do throws(HTTPResponseParser.Malformed) {
      for part in parts {
        var offset = 0
        part: while true {
          switch try parser.next(part.span, at: &offset) {
          case .head(let head): heads.append(head)
          case .body(let range): body += part[range]
          case .incomplete: break part
          case .end:
            isComplete = true
            break part
          }
        }
        surplus += part.count - offset
      }
      if closes { isComplete = parser.finish() }
      isReusable = parser.isReusable
    } catch { malformed = error.reason }
  }
}

@Suite("HTTP response parser")
struct HTTPResponseParserTests {
  private static let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

  private static let responses: [(response: String, body: String, isReusable: Bool)] = [
    ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", true),
    ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "", true),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\ncontent-length:  2 \r\nConnection: Close\r\n\r\nab", "ab", false),
    ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", "ab", false),
    ("HTTP/1.1 204 No Content\r\n\r\n", "", true),
    ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", "", true),
    (chunked + "5\r\nhello\r\n0\r\n\r\n", "hello", true),
    (
      chunked + "3\r\nabc\r\nA;name=\"value\";x\r\n0123456789\r\n0000 \t\r\nTrailer: x\r\nOther:\r\n\r\n",
      "abc0123456789", true
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding:\tChunked\r\n\r\n1\r\na\r\n0\r\n\r\n", "a", true),
    (
      "HTTP/1.1 103 Early Hints\r\nContent-Length: 7\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + chunked
        + "1\r\na\r\n0\r\n\r\n", "a", true
    ),
    ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\tc\r\nContent-Length:\r\n 3\r\n\r\nabc", "abc", true),
  ]

  @Test("A response is parsed identically at every split", arguments: responses)
  func splits(response: String, body: String, isReusable: Bool) {
    let bytes = Array(response.utf8)
    let whole = Transcript([bytes])
    #expect(whole.malformed == nil && whole.isComplete && whole.isReusable == isReusable, "\(whole)")
    #expect(whole.heads.count == 1 && String(decoding: whole.body, as: UTF8.self) == body, "\(whole)")
    for index in bytes.indices {
      #expect(Transcript([Array(bytes[..<index]), Array(bytes[index...])]) == whole, "split at \(index)")
    }
    #expect(Transcript(bytes.map { [$0] }) == whole)
  }

  @Test("A response without a length ends when the connection is closed")
  func untilClose() {
    let bytes = Array("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nab".utf8)
    #expect(!Transcript([bytes]).isComplete)
    let closed = Transcript([bytes], closes: true)
    #expect(closed.isComplete && !closed.isReusable && closed.body == Array("ab".utf8), "\(closed)")
  }

  @Test(
    "A connection that closes before the end of a response leaves it incomplete",
    arguments: [
      "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", chunked + "5\r\nhel",
      chunked + "5\r\nhello\r\n",
      chunked + "0\r\n",
    ])
  func closed(response: String) {
    let transcript = Transcript([Array(response.utf8)], closes: true)
    #expect(!transcript.isComplete && transcript.malformed == nil, "\(transcript)")
  }

  @Test("The fields of the head are read, and those of informational responses and trailers are ignored")
  func fields() throws {
    let response =
      "HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\nHTTP/1.1 429 Slow\r\nCONTENT-TYPE: Text/Event-Stream \r\n"
      + "Retry-After: 7\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Type: x\r\n\r\n"
    let head = try #require(Transcript([Array(response.utf8)]).heads.first)
    #expect(head.status == 429 && head.contentType == "text/event-stream" && head.coding == .none, "\(head)")
    #expect(head.retryAfter == .seconds(7))
  }

  @Test("Bytes that follow a response are not consumed")
  func surplus() {
    for response in ["HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP", Self.chunked + "0\r\n\r\nHTTP"] {
      let transcript = Transcript([Array(response.utf8)])
      #expect(transcript.isComplete && transcript.surplus == 4, "\(transcript)")
    }
  }

  @Test(
    "A response whose end is ambiguous, or that is not HTTP, is malformed",
    arguments: [
      // Two statements of the length.
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
      "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
      // Lengths that other parsers read differently.
      "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
      chunked + "0x1\r\n", chunked + "+1\r\n", chunked + "\r\n", chunked + ";x\r\n", chunked + "1 1\r\n",
      chunked + " 1\r\n",
      chunked + "1000000000000000\r\n", chunked + "1\r\nab\r\n", chunked + "1\n", chunked + "1\r\na\n",
      chunked + "1;a\rb\r\n",
      // Lines.
      "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "HTTP/1.1 200 OK\r\nA: b\u{0}\r\n\r\n",
      "HTTP/1.1 200 OK\r\nA: b\rc: d\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent Length: 1\r\n\r\n",
      "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "HTTP/1.1 200 OK\r\nx\r\n\r\n", "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
      chunked + "0\r\nno colon\r\n",
      // Status lines.
      "\r\nHTTP/1.1 200 OK\r\n", "HTTP/2 200 OK\r\n", "HTTP/1.1  200 OK\r\n", "HTTP/1.1 20 OK\r\n",
      "HTTP/1.1 2000 OK\r\n",
      "HTTP/1.1 099 OK\r\n", "HTTP/1.1 101 Switching Protocols\r\n", "http/1.1 200 OK\r\n", "SSH-2.0-OpenSSH_9.2\r\n",
    ])
  func malformed(response: String) {
    let bytes = Array(response.utf8)
    #expect(Transcript([bytes]).malformed != nil)
    #expect(Transcript(bytes.map { [$0] }).malformed == Transcript([bytes]).malformed)
  }

  @Test("A head, a line or the chunk extensions without an end are malformed instead of buffered without a limit")
  func limits() {
    let long = String(repeating: "x", count: 70_000)
    let many = String(repeating: "a: b\r\n", count: 1001)
    let extensions = String(repeating: "1;\(String(repeating: "x", count: 1000))\r\na\r\n", count: 70)
    for response in [
      long, "HTTP/1.1 200 OK\r\na: \(long)", "HTTP/1.1 200 OK\r\n\(many)", Self.chunked + "0\r\n\(many)",
      Self.chunked + "1;" + long, Self.chunked + extensions,
      String(repeating: "HTTP/1.1 100 Continue\r\n\r\n", count: 1000),
    ] {
      #expect(Transcript([Array(response.utf8)]).malformed != nil, "\(response.prefix(80))")
    }
  }

  @Test("A mutated response is parsed identically however it is split, and never traps", arguments: 0..<300)
  func mutated(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let bytes = Array(Self.responses[seed % Self.responses.count].response.utf8).mutated(&random)
    let whole = Transcript([bytes], closes: true)
    #expect(Transcript(bytes.map { [$0] }, closes: true) == whole, "seed \(seed)")
    let middle = Int.random(in: 0...bytes.count, using: &random)
    #expect(Transcript([Array(bytes[..<middle]), Array(bytes[middle...])], closes: true) == whole, "seed \(seed)")
  }
}

@Suite("HTTP origin")
struct HTTPOriginTests {
  @Test("A plain URL is split into host, port, authority and path")
  func parsed() throws {
    let usual = try #require(HTTPOrigin("http://127.0.0.1:8080/v1/"))
    #expect(
      usual.host == "127.0.0.1" && usual.port == "8080" && usual.authority == "127.0.0.1:8080" && usual.path == "/v1")
    let bare = try #require(HTTPOrigin("http://model"))
    #expect(bare.host == "model" && bare.port == "80" && bare.authority == "model" && bare.path == "")
    let v6 = try #require(HTTPOrigin("http://[::1]:11434/v1"))
    #expect(v6.host == "::1" && v6.port == "11434" && v6.authority == "[::1]:11434" && v6.path == "/v1")
  }

  @Test(
    "Any other URL is left to libcurl",
    arguments: [
      "https://a/v1", "http://", "http://:80/", "http://user@a/v1", "http://a:0/", "http://a:99999/", "http://a:b/",
      "http://[::1/", "http://[::1]x/", "http://bücher.example/v1", "http://a/v1?x=y", "http://a/v1#x", "http://a b/",
      "http://a%2Fb/",
    ])
  func unusual(url: String) { #expect(HTTPOrigin(url) == nil) }
}
