import SluiceTesting
import Testing

@testable import FastCGI

@Suite("A request")
struct RequestTests {
  @Test("has the path of PATH_INFO, else of REQUEST_URI, else SCRIPT_NAME")
  func path() {
    #expect(Request(parameters: ["PATH_INFO": "/a", "REQUEST_URI": "/b"]).path == "/a")
    #expect(Request(parameters: ["PATH_INFO": "", "REQUEST_URI": "/b%20c?d=/e"]).path == "/b c")
    #expect(Request(parameters: ["REQUEST_URI": "/b+c#f"]).path == "/b+c")
    #expect(Request(parameters: ["SCRIPT_NAME": "/s"]).path == "/s")
    #expect(Request(parameters: [:]).path == "/")
  }

  @Test("decodes its query as a form, and leaves what is no encoding as it is")
  func query() {
    let request = Request(parameters: ["QUERY_STRING": "a=1&b=x+y%26z&c&d=%zz%4&a=2&%61b=%F0%9F%8E%A7"])
    #expect(request.query("a") == "1")
    #expect(request.query("b") == "x y&z")
    #expect(request.query("c") == "")
    #expect(request.query("d") == "%zz%4")
    #expect(request.query("ab") == "🎧")
    #expect(request.query("e") == nil)
  }

  @Test("finds header fields under any case, the two that CGI names otherwise too")
  func headers() {
    let request = Request(parameters: ["HTTP_LAST_EVENT_ID": "7", "CONTENT_TYPE": "application/json"])
    #expect(request.header("last-event-id") == "7")
    #expect(request.header("Content-Type") == "application/json")
    #expect(request.header("X-Other") == nil)
  }

  @Test("takes the last of two parameters with one name, and forgets one that is set to nil")
  func parameters() {
    var parameters: Parameters = ["A": "1", "B": "2", "A": "3"]
    #expect(parameters["A"] == "3")
    parameters["A"] = nil
    #expect(parameters["A"] == nil)
    #expect(parameters["B"] == "2")
    for text in ["C=4=5", "none"] {
      let bytes = Array(text.utf8)
      parameters.add(bytes.span)
    }
    #expect(parameters["C"] == "4=5")
    #expect(parameters.map(\.name) == ["B", "C"])
  }

  @Test("is known to be whole at its last byte, and not before", arguments: [0, 1, 70_000])
  func wholeness(bodyBytes: Int) {
    let body = [UInt8](repeating: 7, count: bodyBytes)
    let bytes = FastCGIClient.request(
      [("REQUEST_METHOD", "POST"), ("X", String(repeating: "y", count: 200))], body: body)
    for count in stride(from: 0, to: bytes.count, by: max(1, bytes.count / 500)) {
      #expect(scan(Array(bytes[..<count])) == .incomplete, "\(count) of \(bytes.count)")
    }
    #expect(scan(bytes) == .whole)
  }

  @Test("is told from junk, from an abort, and from what needs the library")
  func unusual() {
    let begin = FastCGIClient.record(1, [0, 1, 0, 0, 0, 0, 0, 0])
    let cases: [([UInt8], RequestScan)] = [
      (Array("GET / HTTP/1.1".utf8), .junk),
      ([0], .junk),
      (FastCGIClient.record(200), .junk),
      (FastCGIClient.record(1, [0, 1]), .junk),
      (FastCGIClient.record(2), .abort),
      (FastCGIClient.record(9, id: 0, FastCGIClient.pairs([("FCGI_MPXS_CONNS", "")])), .junk),
      (begin + FastCGIClient.record(4, id: 2), .unusual),
      (begin + FastCGIClient.record(5), .unusual),
    ]
    for (bytes, expected) in cases { #expect(scan(bytes) == expected, "\(bytes.prefix(24))") }
  }
}

private func scan(_ bytes: [UInt8]) -> RequestScan { RequestScan(bytes.span) }

@Suite("A response head")
struct ResponseHeadTests {
  @Test("cannot hold a value that would begin another field", arguments: ["a\r\nb", "a\nb", "a\rb", "a\0b", "\u{7F}"])
  func injection(text: String) {
    #expect(FieldValue(text) == nil)
  }

  @Test("is written as CGI writes it, a field that is set twice once")
  func encoding() {
    var head = ResponseHead(status: 404)
    head.set("Content-Type", "a/b")
    head.set("X", FieldValue(1))
    head.set("Content-Type", "c/d")
    var buffer: [UInt8] = []
    head.encode(into: &buffer)
    #expect(String(decoding: buffer, as: UTF8.self) == "Status: 404 Not Found\r\nX: 1\r\nContent-Type: c/d\r\n\r\n")
  }
}
