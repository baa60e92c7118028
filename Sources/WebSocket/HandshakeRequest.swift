import Bytes
import CCrypto

/// The request that opens a WebSocket (RFC 6455, 4.1), with a valid syntax.
package struct HandshakeRequest: Sendable {
  /// The request target: the path, percent-encoded, and the query if there is one.
  package let target: String
  /// The header fields, in lower case, in the order received.
  package let fields: [(name: String, value: String)]

  /// Returns the value of a header field by its lower-case name; the values of several fields are joined by commas.
  package subscript(name: String) -> String? {
    let values = fields.lazy.filter { $0.name == name }.map(\.value)
    return values.isEmpty ? nil : values.joined(separator: ", ")
  }

  /// Returns the elements of a header field that is a comma-separated list.
  package func list(_ name: String) -> [String] {
    (self[name] ?? "").split(separator: ",").map { $0.trimmingSpaces }.filter { !$0.isEmpty }
  }

  /// The reason why the request does not open a WebSocket, as a sentence; nil if it does.
  package var issue: String? {
    guard list("upgrade").contains(where: { $0.lowercased() == "websocket" }),
      list("connection").contains(where: { $0.lowercased() == "upgrade" })
    else { return "This address only serves WebSockets." }
    guard self["sec-websocket-version"] == "13" else { return "\"Sec-WebSocket-Version\" must be 13." }
    guard key != nil else { return "\"Sec-WebSocket-Key\" must be 16 bytes in Base64." }
    return nil
  }

  /// The value of `Sec-WebSocket-Key`, if it is valid.
  private var key: String? {
    guard let key = self["sec-websocket-key"], key.utf8.count == 24, key.hasSuffix("==") else { return nil }
    let isBase64 = key.utf8.dropLast(2).allSatisfy { byte in
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "/"):
        true
      default: false
      }
    }
    return isBase64 ? key : nil
  }

  /// Returns the response that opens the WebSocket (RFC 6455, 4.2.2).
  ///
  /// - Parameter subprotocol: the selected subprotocol, one of those that the client offers.
  package func acceptance(subprotocol: String?) -> [UInt8] {
    var head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Accept: \(Self.accept(key ?? ""))\r\n"
    if let subprotocol { head += "Sec-WebSocket-Protocol: \(subprotocol)\r\n" }
    return Array((head + "\r\n").utf8)
  }

  /// Returns the value of `Sec-WebSocket-Accept` for a key.
  static func accept(_ key: String) -> String {
    let text = Array((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").utf8)
    var digest = [UInt8](repeating: 0, count: 20)
    var length: CUnsignedInt = 0
    let result = unsafe EVP_Digest(text, text.count, &digest, &length, EVP_sha1(), nil)
    precondition(result == 1 && length == 20, "libcrypto has no SHA-1")
    // 28 characters and a terminating zero.
    var encoded = [UInt8](repeating: 0, count: 29)
    let count = unsafe EVP_EncodeBlock(&encoded, digest, 20)
    return String(decoding: encoded.prefix(Int(count)), as: UTF8.self)
  }
}

/// Reads the head of one request, strictly. A value without I/O.
package struct HandshakeParser: Sendable {
  /// The result of reading some bytes.
  package enum Status: Sendable {
    case incomplete
    /// The head is complete.
    ///
    /// - Parameter rest: the bytes after it.
    case complete(HandshakeRequest, rest: [UInt8])
    /// The bytes are not a GET request of HTTP/1.1, or the head is too long.
    case malformed
  }

  private var bytes: [UInt8] = []

  /// The maximum size of a head.
  package static let maximumBytes = 16 * 1024

  package init() {}

  package mutating func read(_ more: borrowing Span<UInt8>) -> Status {
    let searched = max(0, bytes.count - 3)
    bytes.append(more)
    guard bytes.prefix(4).elementsEqual("GET ".utf8.prefix(bytes.count)) else { return .malformed }
    guard let end = bytes[searched...].firstRange(of: Array("\r\n\r\n".utf8)) else {
      return bytes.count > Self.maximumBytes ? .malformed : .incomplete
    }
    guard end.upperBound <= Self.maximumBytes, let request = Self.request(bytes[..<end.lowerBound]) else {
      return .malformed
    }
    return .complete(request, rest: Array(bytes[end.upperBound...]))
  }

  private static func request(_ head: ArraySlice<UInt8>) -> HandshakeRequest? {
    var lines = head.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)[...]
    for index in lines.indices.dropLast() {
      guard lines[index].last == UInt8(ascii: "\r") else { return nil }
      lines[index].removeLast()
    }
    guard let first = lines.popFirst(), let target = target(first) else { return nil }
    var fields: [(name: String, value: String)] = []
    for line in lines {
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")), colon > line.startIndex,
        line[..<colon].allSatisfy(isTokenCharacter), line[(colon + 1)...].allSatisfy(isValueCharacter)
      else { return nil }
      let value = String(decoding: line[(colon + 1)...], as: UTF8.self).trimmingSpaces
      fields.append((String(decoding: line[..<colon], as: UTF8.self).lowercased(), value))
    }
    return HandshakeRequest(target: target, fields: fields)
  }

  /// Returns the target of a request line.
  private static func target(_ line: ArraySlice<UInt8>) -> String? {
    let parts = line.split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
    guard parts.count == 3, parts[1].first == UInt8(ascii: "/"), parts[2].elementsEqual("HTTP/1.1".utf8),
      parts[1].allSatisfy({ (0x21...0x7E).contains($0) })
    else { return nil }
    return String(decoding: parts[1], as: UTF8.self)
  }

  /// Returns whether a byte can be part of a field name (RFC 9110, 5.6.2).
  private static func isTokenCharacter(_ byte: UInt8) -> Bool {
    (0x21...0x7E).contains(byte) && !"\"(),/:;<=>?@[\\]{}".utf8.contains(byte)
  }

  /// Returns whether a byte can be part of a field value (RFC 9110, 5.5).
  private static func isValueCharacter(_ byte: UInt8) -> Bool { byte == 9 || (byte >= 0x20 && byte != 0x7F) }
}

extension StringProtocol {
  /// The text without spaces and tabs at its ends.
  fileprivate var trimmingSpaces: String {
    let isSpace = { (character: Character) in character == " " || character == "\t" }
    var text = self.drop(while: isSpace)
    while let last = text.last, isSpace(last) { text.removeLast() }
    return String(text)
  }
}
