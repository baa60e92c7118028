import SluiceTesting
import Testing

@testable import FastCGI

@Suite("Request")
struct RequestTests {
  @Test("The path comes from PATH_INFO, else from REQUEST_URI, else from SCRIPT_NAME")
  func path() {
    #expect(Request(parameters: ["PATH_INFO": "/a", "REQUEST_URI": "/b"]).path == "/a")
    #expect(Request(parameters: ["PATH_INFO": "", "REQUEST_URI": "/b%20c?d=/e"]).path == "/b c")
    #expect(Request(parameters: ["REQUEST_URI": "/b+c#f"]).path == "/b+c")
    #expect(Request(parameters: ["SCRIPT_NAME": "/s"]).path == "/s")
    // A target in absolute form, and one that is not.
    #expect(Request(parameters: ["REQUEST_URI": "http://a.example:80/b%20c?d"]).path == "/b c")
    #expect(Request(parameters: ["REQUEST_URI": "https://a.example?d"]).path == "/")
    #expect(Request(parameters: ["REQUEST_URI": "/b?u=http://c/d"]).path == "/b")
    #expect(Request(parameters: [:]).path == "/")
  }

  @Test("The query is decoded as a form, and malformed escapes are left unchanged")
  func query() {
    let request = Request(parameters: ["QUERY_STRING": "a=1&b=x+y%26z&c&d=%zz%4&a=2&%61b=%F0%9F%8E%A7"])
    #expect(request.query("a") == "1")
    #expect(request.query("b") == "x y&z")
    #expect(request.query("c") == "")
    #expect(request.query("d") == "%zz%4")
    #expect(request.query("ab") == "🎧")
    #expect(request.query("e") == nil)
  }

  @Test("Header fields are found in any case, including the two that CGI passes without the HTTP_ prefix")
  func headers() {
    let request = Request(parameters: ["HTTP_LAST_EVENT_ID": "7", "CONTENT_TYPE": "application/json"])
    #expect(request.header("last-event-id") == "7")
    #expect(request.header("Content-Type") == "application/json")
    #expect(request.header("X-Other") == nil)
    #expect(request.header("CONTENT-TYPE") == "application/json")
    // A client's header fields of these names do not exist: the web server passes them separately.
    let disguised = Request(parameters: ["HTTP_CONTENT_TYPE": "a", "X_OTHER": "b", "HTTP_X_OTHER": "c"])
    #expect(disguised.header("Content-Type") == nil && disguised.header("x-other") == "c")
  }

  @Test("The last of two parameters with the same name counts, and setting one to nil removes it")
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

  @Test("Parameters set by the web server are distinguished from header fields sent by the client")
  func serverParameters() {
    let parameters: Parameters = ["SLUICE_MODEL": "a", "HTTP_SLUICE_MODEL": "b", "HTTPS": "on", "HTTP_": ""]
    #expect(parameters.serverParameters.map(\.name) == ["SLUICE_MODEL", "HTTPS"])
    #expect(parameters["HTTP_SLUICE_MODEL"] == "b")
  }
}

@Suite("Request records")
struct RequestRecordsTests {
  private static let parameters = [
    ("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "5"), ("X", String(repeating: "y", count: 200)),
  ]
  /// A request in which the padding of every record is itself a record.
  private static let padded: [UInt8] = {
    let trap = FastCGIClient.record(9, id: 0, FastCGIClient.pairs([("FCGI_MPXS_CONNS", "")]))
    func record(_ type: UInt8, _ content: [UInt8]) -> [UInt8] {
      Array(FastCGIClient.record(type, content, padding: UInt8(trap.count)).dropLast(trap.count)) + trap
    }
    let pairs = FastCGIClient.pairs(parameters)
    return record(1, [0, 1, 1, 0, 0, 0, 0, 0]) + record(4, Array(pairs[..<100])) + record(4, Array(pairs[100...]))
      + record(4, []) + record(5, Array("he".utf8)) + record(5, Array("llo".utf8)) + record(5, [])
  }()

  private func read(_ pieces: [[UInt8]], bodyLimit: Int = 1 << 20, parameterLimit: Int = 4096) -> RequestRecords {
    var records = RequestRecords(maximumParameterBytes: parameterLimit, maximumBodyBytes: bodyLimit)
    for piece in pieces { _ = records.feed(piece.span) }
    return records
  }

  @Test("A request is parsed identically at every split, and is complete only after its last padding byte")
  func splits() {
    let bytes = Self.padded
    for split in 0...bytes.count {
      let part = read([Array(bytes[..<split])])
      #expect(part.status == (split == bytes.count ? .complete : .incomplete), "split at \(split)")
      let records = read([Array(bytes[..<split]), Array(bytes[split...])])
      #expect(records.status == .complete && records.body == Array("hello".utf8), "split at \(split)")
      #expect(records.parameters == FastCGIClient.pairs(Self.parameters), "split at \(split)")
    }
    let bytewise = read(bytes.map { [$0] })
    #expect(bytewise.status == .complete && bytewise.body == Array("hello".utf8))
  }

  @Test("Records are passed to libfcgi without padding, and bytes after the request are not consumed")
  func head() {
    let pairs = FastCGIClient.pairs(Self.parameters)
    var records = RequestRecords(maximumBodyBytes: 100)
    #expect(records.feed((Self.padded + [7, 8]).span) == Self.padded.count)
    #expect(
      records.head == FastCGIClient.record(1, [0, 1, 1, 0, 0, 0, 0, 0]) + FastCGIClient.record(4, pairs)
        + FastCGIClient.record(4))
  }

  @Test("Parameters and bodies are accepted up to their limits")
  func limits() {
    let long = FastCGIClient.request([("A", String(repeating: "x", count: 60_000))], body: [1, 2, 3])
    #expect(read([long], parameterLimit: 60_005).status == .parametersTooLarge)
    #expect(read([long], parameterLimit: 60_006).status == .complete)
    #expect(read([long], bodyLimit: 2, parameterLimit: 100_000).status == .bodyTooLarge)
    for (count, status) in [(1000, RequestRecords.Status.complete), (1001, .parametersTooLarge)] {
      let many = FastCGIClient.request((0..<count).map { ("A\($0)", "") })
      #expect(read([many], parameterLimit: 100_000).status == status, "\(count)")
    }
  }

  @Test("Malformed and aborted requests are rejected")
  func malformed() {
    let begin = FastCGIClient.record(1, [0, 1, 0, 0, 0, 0, 0, 0])
    let cases: [([UInt8], RequestRecords.Status)] = [
      (Array("GET / HTTP/1.1".utf8), .malformed),
      ([0], .malformed),
      (FastCGIClient.record(200), .malformed),
      // A record of an unsupported protocol version is malformed, although its type is FCGI_ABORT_REQUEST.
      ([0, 2, 0, 1, 0, 0, 0, 0], .malformed),
      (FastCGIClient.record(1, [0, 1]), .malformed),
      // The role is FCGI_FILTER instead of FCGI_RESPONDER.
      (FastCGIClient.record(1, [0, 3, 0, 0, 0, 0, 0, 0]), .malformed),
      (FastCGIClient.record(2), .aborted),
      (begin + FastCGIClient.record(2), .aborted),
      (begin + FastCGIClient.record(2, id: 2), .malformed),
      (FastCGIClient.record(9, id: 0, [UInt8](repeating: 0, count: 1025)), .malformed),
      (FastCGIClient.record(9, id: 1, FastCGIClient.pairs([("FCGI_MPXS_CONNS", "")])), .malformed),
      (begin + FastCGIClient.record(9, id: 0, FastCGIClient.pairs([("FCGI_MPXS_CONNS", "")])), .malformed),
      (begin + FastCGIClient.record(4, id: 2), .malformed),
      (begin + begin, .malformed),
      (begin + FastCGIClient.record(5), .malformed),
      (begin + FastCGIClient.record(4) + FastCGIClient.record(4), .malformed),
      // The lengths exceed the available bytes; libfcgi would allocate memory for them.
      (
        begin + FastCGIClient.record(4, [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 65]) + FastCGIClient.record(4),
        .malformed
      ),
      (begin + FastCGIClient.record(4, [3, 0, 65]) + FastCGIClient.record(4), .malformed),
      (begin + FastCGIClient.record(4, [1]) + FastCGIClient.record(4), .malformed),
    ]
    for (bytes, expected) in cases {
      #expect(read([bytes]).status == expected, "\(bytes.prefix(32))")
      #expect(read(bytes.map { [$0] }).status == expected, "byte by byte: \(bytes.prefix(32))")
    }
  }

  @Test("Mutated records are parsed identically however they are split", arguments: 0..<300)
  func malformed(seed: Int) {
    var random = SeededGenerator(seed: UInt64(seed))
    let bytes = Self.padded.mutated(&random)
    let (whole, pieces) = (read([bytes]), read(bytes.splitIntoChunks(&random)))
    #expect(whole.status == pieces.status && whole.body == pieces.body, "seed \(seed)")
  }
}

@Suite("Response head")
struct ResponseHeadTests {
  @Test("Field values cannot contain control characters", arguments: ["a\r\nb", "a\nb", "a\rb", "a\0b", "\u{7F}"])
  func injection(text: String) {
    #expect(FieldValue(text) == nil)
  }

  @Test("A head is encoded in CGI format, and a field that is set twice is sent once")
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
