import Bytes
import EventStream

/// An incremental parser for one HTTP/1.1 response (RFC 9112), which accepts parts of any size. A value that performs
/// no I/O.
///
/// It is strict: where two parsers could disagree about the end of the response, the response is malformed. The body is
/// returned as ranges of the input, without a copy.
struct HTTPResponseParser {
  /// The reason why a response is not acceptable, for the log.
  struct Malformed: Error, Equatable {
    let reason: String
  }

  enum Element: Equatable {
    /// The head of the final response. Informational responses are skipped. Indirect, so that a part of the body is
    /// returned in registers.
    indirect case head(HTTPResponseHead)
    /// The next bytes of the body: a range of the input.
    case body(Range<Int>)
    /// The end of the response.
    case end
    /// More input is needed.
    case incomplete
  }

  private enum State {
    case statusLine
    case fields
    case headComplete
    /// The body has a known number of further bytes.
    case body(Int)
    /// The body ends when the connection is closed.
    case bodyUntilClose
    case chunkSize
    case chunk(Int)
    /// After the content of a chunk.
    case chunkEnd
    case trailers
    case complete
  }

  /// The last coding of `Transfer-Encoding`.
  private enum TransferCoding {
    case none, chunked, other
  }

  private var state = State.statusLine
  /// The start of a line whose end has not been received.
  private var line: [UInt8] = []
  /// The last field line of the head. A folded line can continue it.
  private var field: [UInt8] = []
  private var head = HTTPResponseHead()
  private var contentLength: Int?
  private var transferCoding = TransferCoding.none
  private var isPersistentVersion = true
  private var closesConnection = false
  private var headBytes = 0
  private var lines = 0
  private var chunkExtensionBytes = 0

  /// The maximum size and number of the lines of heads and trailers, and the maximum size of all chunk extensions: more
  /// than any server sends.
  private static let maximumHeadBytes = 64 * 1024
  private static let maximumLines = 1000
  private static let maximumChunkLineBytes = 1024

  /// Whether the response is complete, so that the connection can carry the next request.
  var isReusable: Bool {
    guard case .complete = state else { return false }
    return !closesConnection
  }

  /// Whether a byte of a response has been received.
  var hasBegun: Bool { lines > 0 || !line.isEmpty }

  /// Parses `bytes` from `offset` on and returns the next element. `offset` is advanced past it.
  mutating func next(_ bytes: borrowing Span<UInt8>, at offset: inout Int) throws(Malformed) -> Element {
    while true {
      switch state {
      case .chunkSize where offset == bytes.count: return .incomplete
      case .body(0): state = .complete
      case .chunk(let count), .body(let count):
        guard offset < bytes.count else { return .incomplete }
        return .body(takeBody(count, bytes.count, &offset))
      case .chunkEnd where line.isEmpty && bytes.isLineEnd(at: offset):
        offset += 2
        state = .chunkSize
      case .chunkSize where line.isEmpty && readShortChunkSize(bytes, &offset): break
      case .chunkSize, .chunkEnd, .trailers, .statusLine, .fields:
        guard try readLine(bytes, &offset) else { return .incomplete }
        try processLine()
        line.removeAll(keepingCapacity: true)
      case .headComplete where head.status < 200:
        // An informational response is followed by another head.
        (head, contentLength, transferCoding, state) = (HTTPResponseHead(), nil, .none, .statusLine)
      case .headComplete:
        try beginBody()
        // An open stream needs neither.
        line = []
        field = []
        return .head(head)
      case .bodyUntilClose:
        guard offset < bytes.count else { return .incomplete }
        defer { offset = bytes.count }
        return .body(offset..<bytes.count)
      case .complete: return .end
      }
    }
  }

  /// Returns whether the end of the connection is the end of the response.
  mutating func finish() -> Bool {
    switch state {
    case .bodyUntilClose, .complete:
      state = .complete
      return true
    default: return false
    }
  }

  private mutating func takeBody(_ left: Int, _ end: Int, _ offset: inout Int) -> Range<Int> {
    let range = offset..<(offset + min(left, end - offset))
    offset = range.upperBound
    let rest = left - range.count
    if case .chunk = state { state = rest == 0 ? .chunkEnd : .chunk(rest) } else { state = .body(rest) }
    return range
  }

  // MARK: Lines

  /// Reads the rest of a line into ``line``, without its line end. Returns false if its end has not been received.
  private mutating func readLine(_ bytes: borrowing Span<UInt8>, _ offset: inout Int) throws(Malformed) -> Bool {
    let start = offset
    while offset < bytes.count {
      let byte = bytes[offset]
      offset += 1
      guard byte == 0x0A else { continue }
      line.append(bytes.extracting(start..<(offset - 1)))
      try checkLength()
      guard line.popLast() == 0x0D else { throw Malformed(reason: "a line does not end with CR LF") }
      if line.contains(where: { $0 == 0 || $0 == 0x0D }) {
        throw Malformed(reason: "a line contains a NUL or CR character")
      }
      return true
    }
    line.append(bytes.extracting(start..<offset))
    try checkLength()
    return false
  }

  /// Checks the length of ``line``, including its CR.
  private func checkLength() throws(Malformed) {
    switch state {
    case .chunkSize where line.count > Self.maximumChunkLineBytes:
      throw Malformed(reason: "the line of a chunk size is too long")
    case .chunkEnd where line.count > 1: throw Malformed(reason: "a chunk is longer than its size")
    case .statusLine, .fields, .trailers:
      if headBytes + line.count > Self.maximumHeadBytes || lines >= Self.maximumLines {
        throw Malformed(reason: "the head is too large")
      }
    default: break
    }
  }

  private mutating func processLine() throws(Malformed) {
    switch state {
    case .chunkSize, .chunkEnd: break
    default:
      headBytes += line.count
      lines += 1
    }
    switch state {
    case .statusLine: try readStatusLine()
    case .fields: try readFieldLine()
    case .chunkSize: try readChunkSize()
    case .chunkEnd: state = .chunkSize
    case .trailers:
      // Trailers are not needed; they are read to find the end of the response.
      if line.isEmpty { state = .complete } else { _ = try Self.fieldName(of: line.span) }
    case .headComplete, .body, .bodyUntilClose, .chunk, .complete: break
    }
  }

  // MARK: Head

  /// Reads `HTTP/1.1 200 OK` (RFC 9112, 4).
  private mutating func readStatusLine() throws(Malformed) {
    let isStatusLine =
      line.count >= 12 && line.starts(with: "HTTP/1.".utf8) && Self.isDigit(line[7]) && line[8] == UInt8(ascii: " ")
      && line[9..<12].allSatisfy(Self.isDigit) && (line.count == 12 || line[12] == UInt8(ascii: " "))
    guard isStatusLine else { throw Malformed(reason: "the response does not start with an HTTP/1.x status line") }
    head.status = line[9..<12].reduce(0) { 10 * $0 + Int($1 - UInt8(ascii: "0")) }
    guard head.status >= 100, head.status != 101 else { throw Malformed(reason: "the status is \(head.status)") }
    isPersistentVersion = line[7] != UInt8(ascii: "0")
    if !isPersistentVersion { closesConnection = true }
    state = .fields
  }

  private mutating func readFieldLine() throws(Malformed) {
    if let first = line.first, Self.isBlank(first) {
      // Obsolete folding: the line continues the previous field (RFC 9112, 5.2).
      guard !field.isEmpty else { throw Malformed(reason: "the first field line starts with whitespace") }
      field.append(UInt8(ascii: " "))
      field += line[Self.trimmed(line.span)]
      return
    }
    if !field.isEmpty { try processField() }
    if line.isEmpty {
      state = .headComplete
    } else {
      swap(&field, &line)
    }
  }

  private mutating func processField() throws(Malformed) {
    var field = exchange(&field, with: [])
    let colon = try Self.fieldName(of: field.span)
    for index in 0..<colon where (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains(field[index]) { field[index] += 0x20 }
    let name = field.span.extracting(0..<colon)
    let value = field.span.extracting(Self.trimmed(field.span, from: colon + 1))
    if name.equals("content-length") {
      guard let length = Self.length(value), contentLength == nil || contentLength == length else {
        throw Malformed(reason: "Content-Length is invalid")
      }
      contentLength = length
    } else if name.equals("transfer-encoding") {
      guard transferCoding == .none else { throw Malformed(reason: "Transfer-Encoding is repeated") }
      // Other codings are marked in the head.
      transferCoding = Self.endsWithChunked(value) ? .chunked : .other
    } else if name.equals("connection") {
      let options = String(decodingUTF8: value).lowercased().split { $0 == "," || $0 == " " || $0 == "\t" }
      if options.contains("close") { closesConnection = true }
    }
    head.readField(name: name, value: value)
  }

  /// Determines the end of the body (RFC 9112, 6.3).
  private mutating func beginBody() throws(Malformed) {
    if transferCoding != .none, contentLength != nil || !isPersistentVersion {
      throw Malformed(reason: "Transfer-Encoding is combined with Content-Length or HTTP/1.0")
    }
    if [204, 205, 304].contains(head.status) {
      state = .body(0)
    } else if transferCoding == .chunked {
      state = .chunkSize
    } else if let contentLength {
      state = .body(contentLength)
    } else {
      closesConnection = true
      state = .bodyUntilClose
    }
  }

  // MARK: Chunks

  /// Reads a chunk size of at most seven digits without an extension, if the complete line is in `bytes`. This is the
  /// usual case, without a copy of the line. Returns false if it is another one.
  private mutating func readShortChunkSize(_ bytes: borrowing Span<UInt8>, _ offset: inout Int) -> Bool {
    var size = 0
    var index = offset
    while index < bytes.count, index < offset + 7, let digit = UInt8(hexDigit: bytes[index]) {
      size = size << 4 | Int(digit)
      index += 1
    }
    guard size > 0, bytes.isLineEnd(at: index) else { return false }
    offset = index + 2
    state = .chunk(size)
    return true
  }

  /// Reads a line `SIZE` or `SIZE;EXTENSION` (RFC 9112, 7.1).
  private mutating func readChunkSize() throws(Malformed) {
    var size = 0
    var index = 0
    while index < line.count, let digit = UInt8(hexDigit: line[index]) {
      // At most 60 bits, so that no sum overflows.
      guard index < 15 else { throw Malformed(reason: "a chunk size is too large") }
      size = size << 4 | Int(digit)
      index += 1
    }
    guard index > 0 else { throw Malformed(reason: "a chunk has no size") }
    while index < line.count, Self.isBlank(line[index]) { index += 1 }
    guard index == line.count || line[index] == UInt8(ascii: ";") else {
      throw Malformed(reason: "a chunk size is invalid")
    }
    chunkExtensionBytes += line.count - index
    if chunkExtensionBytes > Self.maximumHeadBytes { throw Malformed(reason: "the chunk extensions are too long") }
    state = size == 0 ? .trailers : .chunk(size)
  }

  // MARK: Syntax

  /// Returns the index of the colon behind a field's name, which consists of token characters (RFC 9110, 5.6.2).
  private static func fieldName(of line: borrowing Span<UInt8>) throws(Malformed) -> Int {
    var colon = 0
    while colon < line.count, isTokenCharacter(line[colon]) { colon += 1 }
    guard colon > 0, colon < line.count, line[colon] == UInt8(ascii: ":") else {
      throw Malformed(reason: "a field line has no valid name")
    }
    return colon
  }

  private static func isTokenCharacter(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: "!#$%&'*+-.^_`|~".utf8.contains(byte)
    }
  }

  private static func isDigit(_ byte: UInt8) -> Bool { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) }

  private static func isBlank(_ byte: UInt8) -> Bool { byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") }

  /// Returns the range without the whitespace at both ends.
  private static func trimmed(_ text: borrowing Span<UInt8>, from start: Int = 0) -> Range<Int> {
    var (start, end) = (start, text.count)
    while start < end, isBlank(text[start]) { start += 1 }
    while end > start, isBlank(text[end - 1]) { end -= 1 }
    return start..<end
  }

  /// Returns the value of `Content-Length`: digits only, at most 18.
  private static func length(_ text: borrowing Span<UInt8>) -> Int? {
    guard (1...18).contains(text.count) else { return nil }
    var length = 0
    for index in text.indices {
      guard isDigit(text[index]) else { return nil }
      length = 10 * length + Int(text[index] - UInt8(ascii: "0"))
    }
    return length
  }

  private static func endsWithChunked(_ text: borrowing Span<UInt8>) -> Bool {
    let codings = String(decodingUTF8: text).lowercased().split(separator: ",")
    return codings.last.map { $0.drop { $0 == " " || $0 == "\t" } } == "chunked"
  }
}

extension Span<UInt8> {
  /// Returns whether CR LF is at `index`.
  fileprivate func isLineEnd(at index: Int) -> Bool {
    index + 1 < count && self[index] == 0x0D && self[index + 1] == 0x0A
  }
}
