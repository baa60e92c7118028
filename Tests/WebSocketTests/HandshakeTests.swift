import Testing

@testable import WebSocket

private let valid = """
  GET /ws/api/chat?dialect=chat HTTP/1.1\r
  Host: example.com\r
  Upgrade: WebSocket\r
  Connection: keep-alive, Upgrade\r
  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
  Sec-WebSocket-Version: 13\r
  Sec-WebSocket-Protocol: sluice.v1,  bearer.abc\r
  X-Empty:\r
  \r

  """

@Suite("Handshake of a WebSocket")
struct HandshakeTests {
  private func read(_ text: String) -> HandshakeParser.Status {
    var parser = HandshakeParser()
    return parser.read(Array(text.utf8).span)
  }

  private func request(_ text: String) -> HandshakeRequest? {
    guard case .complete(let request, _) = read(text) else { return nil }
    return request
  }

  @Test("A valid request is read at every split, and the bytes after it are kept")
  func everySplit() throws {
    let bytes = Array((valid + "ab").utf8)
    for split in 0...bytes.count {
      var parser = HandshakeParser()
      var status = parser.read(Array(bytes[..<split]).span)
      var expectedRest = Array(bytes[..<split].dropFirst(bytes.count - 2))
      if case .incomplete = status {
        status = parser.read(Array(bytes[split...]).span)
        expectedRest = [97, 98]
      }
      guard case .complete(let request, let rest) = status else {
        Issue.record("split at \(split): \(status)")
        continue
      }
      #expect(rest == expectedRest, "split at \(split)")
      #expect(request.target == "/ws/api/chat?dialect=chat" && request.issue == nil, "split at \(split)")
      #expect(request.list("sec-websocket-protocol") == ["sluice.v1", "bearer.abc"] && request["x-empty"] == "")
    }
  }

  @Test("The response has the accept value of RFC 6455's example, and names a subprotocol only if there is one")
  func acceptance() throws {
    let request = try #require(self.request(valid))
    #expect(
      String(decoding: request.acceptance(subprotocol: "sluice.v1"), as: UTF8.self)
        == "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: sluice.v1\r\n\r\n")
    #expect(!String(decoding: request.acceptance(subprotocol: nil), as: UTF8.self).contains("Protocol:"))
  }

  @Test(
    "Anything but a GET request of HTTP/1.1 is malformed",
    arguments: [
      "POST /ws HTTP/1.1\r\n\r\n", "GET /ws HTTP/1.0\r\n\r\n", "GET ws HTTP/1.1\r\n\r\n", "GET  /ws HTTP/1.1\r\n\r\n",
      "GET /w s HTTP/1.1\r\n\r\n", "GET /ws HTTP/1.1\nHost: a\r\n\r\n", "GET /ws HTTP/1.1\r\nHost : a\r\n\r\n",
      "GET /ws HTTP/1.1\r\n Host: a\r\n\r\n", "GET /ws HTTP/1.1\r\n: a\r\n\r\n", "GET /ws HTTP/1.1\r\nHost\r\n\r\n",
      "GET /ws HTTP/1.1\r\nHost: a\rb\r\n\r\n", "GET /ws HTTP/1.1\r\nHost: a\0\r\n\r\n", "GET /\u{e9} HTTP/1.1\r\n\r\n",
      "\u{16}\u{3}\u{1}", "GETT", "\u{1}\u{1}\0\u{1}",
      "GET /" + String(repeating: "a", count: 17_000),
    ])
  func malformed(text: String) {
    guard case .malformed = read(text) else {
      Issue.record("\(read(text))")
      return
    }
  }

  @Test(
    "A request that does not open a WebSocket has an issue",
    arguments: [
      ("Upgrade: WebSocket", "Upgrade: h2c"), ("Connection: keep-alive, Upgrade", "Connection: keep-alive"),
      ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), ("Sec-WebSocket-Version: 13", "X: y"),
      ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), ("dGhlIHNhbXBsZSBub25jZQ==", "dGhl!HNhbXBsZSBub25jZQ=="),
      ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: y"),
    ])
  func issues(old: String, new: String) throws {
    let text = valid.split(separator: old, maxSplits: 1).joined(separator: new)
    #expect(try #require(request(text)).issue != nil)
  }
}
