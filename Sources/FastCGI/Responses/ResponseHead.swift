/// The value of a header field. It contains no control character except tab, so no header can be injected with it.
public struct FieldValue: Sendable, Equatable, ExpressibleByStringLiteral, CustomStringConvertible {
  public let description: String

  /// Creates a value. Returns nil if `text` contains a control character other than tab (RFC 9110, 5.5).
  public init?(_ text: String) {
    guard text.utf8.allSatisfy({ $0 == 9 || ($0 >= 0x20 && $0 != 0x7F) }) else { return nil }
    description = text
  }

  /// Creates a value from a number, in decimal digits.
  public init(_ number: Int) { description = String(number) }

  /// Creates a value from a literal, which must be valid.
  public init(stringLiteral text: StaticString) {
    guard let value = FieldValue(text.description) else { preconditionFailure("not a field value: \(text)") }
    self = value
  }
}

/// The status and the header fields of a response.
public struct ResponseHead: Sendable {
  /// A header field. Its name is a literal, so no header can be injected with it.
  public typealias Field = (name: StaticString, value: FieldValue)

  /// The HTTP status.
  public var status: Int
  /// The header fields, in the order in which they are sent.
  public private(set) var fields: [Field] = []

  /// Creates a head without fields.
  public init(status: Int = 200) { self.status = status }

  /// Sets the field `name`, replacing an earlier field of that name.
  public mutating func set(_ name: StaticString, _ value: FieldValue) {
    fields.removeAll { $0.name.hasSameText(as: name) }
    fields.append((name, value))
  }

  /// Appends the head to `buffer` as a CGI header (RFC 3875, 6.2), which FastCGI uses too.
  func encode(into buffer: inout [UInt8]) {
    buffer.append(contentsOf: "Status: ".utf8)
    encodeRest(into: &buffer)
  }

  /// Appends the status, the fields and the empty line.
  fileprivate func encodeRest(into buffer: inout [UInt8]) {
    buffer.append(contentsOf: String(status).utf8)
    buffer.append(contentsOf: " ".utf8)
    buffer.append(contentsOf: Self.reason(status).utf8)
    buffer.append(contentsOf: "\r\n".utf8)
    for (name, value) in fields {
      name.withUTF8Buffer { unsafe buffer.append(contentsOf: $0) }
      buffer.append(contentsOf: ": ".utf8)
      buffer.append(contentsOf: value.description.utf8)
      buffer.append(contentsOf: "\r\n".utf8)
    }
    buffer.append(contentsOf: "\r\n".utf8)
  }

  /// Returns the reason phrase of `status` (RFC 9110, 15).
  static func reason(_ status: Int) -> String {
    switch status {
    case 200: "OK"
    case 201: "Created"
    case 204: "No Content"
    case 400: "Bad Request"
    case 401: "Unauthorized"
    case 403: "Forbidden"
    case 404: "Not Found"
    case 405: "Method Not Allowed"
    case 409: "Conflict"
    case 413: "Content Too Large"
    case 415: "Unsupported Media Type"
    case 422: "Unprocessable Content"
    case 429: "Too Many Requests"
    case 500: "Internal Server Error"
    case 502: "Bad Gateway"
    case 503: "Service Unavailable"
    case 504: "Gateway Timeout"
    default: "Status"
    }
  }
}

extension StaticString {
  fileprivate func hasSameText(as other: StaticString) -> Bool {
    withUTF8Buffer { left in other.withUTF8Buffer { right in unsafe left.elementsEqual(right) } }
  }
}

/// A complete response.
public struct Response: Sendable {
  /// The status and the header fields. `Content-Length` is added when the response is sent.
  public var head: ResponseHead
  /// The body. Not sent in a response to HEAD.
  public var body: [UInt8]

  /// Creates a response. For a JSON response use ``json(_:status:)``.
  public init(_ head: ResponseHead, body: [UInt8] = []) {
    self.head = head
    self.body = body
  }

  /// The response as the last one of an HTTP connection (RFC 9112).
  package var asHTTP: [UInt8] {
    var head = head
    head.set("Content-Length", FieldValue(body.count))
    head.set("Connection", "close")
    var bytes = Array("HTTP/1.1 ".utf8)
    head.encodeRest(into: &bytes)
    return bytes + body
  }
}
