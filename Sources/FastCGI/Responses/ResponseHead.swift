/// A header field's value that can be sent as it is: it holds no CR, LF or NUL, so nothing can be injected with it.
public struct FieldValue: Sendable, Equatable, ExpressibleByStringLiteral, CustomStringConvertible {
  public let description: String

  /// Nil when `text` holds a control character other than tab (RFC 9110, 5.5).
  public init?(_ text: String) {
    guard text.utf8.allSatisfy({ $0 == 9 || ($0 >= 0x20 && $0 != 0x7F) }) else { return nil }
    description = text
  }

  /// A number, in decimal digits.
  public init(_ number: Int) { description = String(number) }

  /// A value written in the program's own text. It must be a valid one.
  public init(stringLiteral text: StaticString) {
    guard let value = FieldValue(text.description) else { preconditionFailure("not a field value: \(text)") }
    self = value
  }
}

/// The status and the header fields of a response.
public struct ResponseHead: Sendable {
  /// A header field. Its name is the program's own text, so nothing can be injected with it.
  public typealias Field = (name: StaticString, value: FieldValue)

  /// The HTTP status.
  public var status: Int
  /// In the order in which they are sent.
  public private(set) var fields: [Field] = []

  /// A head without fields.
  public init(status: Int = 200) { self.status = status }

  /// Sets the one field called `name`, whose name the program's own text gives.
  public mutating func set(_ name: StaticString, _ value: FieldValue) {
    fields.removeAll { $0.name.description == name.description }
    fields.append((name, value))
  }

  /// As a CGI header (RFC 3875, 6.2), which FastCGI uses too.
  func encode(into buffer: inout [UInt8]) {
    buffer.append(contentsOf: "Status: \(status) \(Self.reason(status))\r\n".utf8)
    for (name, value) in fields { buffer.append(contentsOf: "\(name): \(value)\r\n".utf8) }
    buffer.append(contentsOf: "\r\n".utf8)
  }

  /// The reason phrases of RFC 9110, 15.
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

/// A complete response.
public struct Response: Sendable {
  /// Status and header fields. `Content-Length` is added when it is sent.
  public var head: ResponseHead
  /// The body; of a response to HEAD it is not sent.
  public var body: [UInt8]

  /// A response; ``json(_:status:)`` makes a usual one.
  public init(_ head: ResponseHead, body: [UInt8] = []) {
    self.head = head
    self.body = body
  }
}
