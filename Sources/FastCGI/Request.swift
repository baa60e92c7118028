import Bytes

/// One request as the web server hands it on: CGI variables and a body (RFC 3875). A value; use it on any thread.
public struct Request: Sendable {
  /// The CGI variables: what the web server says (`REQUEST_METHOD`, `fastcgi_param …`) and, under names that begin
  /// with `HTTP_`, what the client says.
  public var parameters: Parameters
  /// The body, read whole. Empty when there was none.
  public var body: [UInt8]
  /// Whether the body was longer than the server takes. It was not read then, and ``body`` is empty.
  package var isBodyTooLarge = false
  /// Whether the process has no descriptor left that this request could connect to a model with.
  package var lacksDescriptor = false

  /// A request for tests, or for a function that takes one; the server makes its own.
  public init(parameters: Parameters, body: [UInt8] = []) {
    self.parameters = parameters
    self.body = body
  }

  package init(parameters: Parameters, body: [UInt8] = [], lacksDescriptor: Bool) {
    self.init(parameters: parameters, body: body)
    self.lacksDescriptor = lacksDescriptor
  }

  /// The request method, in upper case: `"GET"` when the server names none.
  public var method: String { parameters["REQUEST_METHOD"]?.uppercased() ?? "GET" }

  /// The path that was asked for, with percent-encoding undone: `PATH_INFO` when it is not empty, else the path of
  /// `REQUEST_URI`, else `SCRIPT_NAME`.
  public var path: String {
    if let path = parameters["PATH_INFO"], !path.isEmpty { return path }
    if let uri = parameters["REQUEST_URI"], !uri.isEmpty {
      return String(uri.prefix { $0 != "?" && $0 != "#" }).percentDecoded(plusIsSpace: false)
    }
    return parameters["SCRIPT_NAME"] ?? "/"
  }

  /// The value of the first query item called `name`, decoded as a form (`+` is a space), or nil.
  public func query(_ name: String) -> String? {
    guard let query = parameters["QUERY_STRING"] else { return nil }
    var rest = query.utf8[...]
    while true {
      let item = rest.prefix { $0 != UInt8(ascii: "&") }
      let key = item.prefix { $0 != UInt8(ascii: "=") }
      if key.elementsEqual(name.utf8) || (key.contains(where: Self.isEscape) && Self.decoded(key) == name) {
        return Self.decoded(item.dropFirst(key.count + 1))
      }
      guard item.endIndex < rest.endIndex else { return nil }
      rest = rest[rest.index(after: item.endIndex)...]
    }
  }

  private static func isEscape(_ byte: UInt8) -> Bool { byte == UInt8(ascii: "%") || byte == UInt8(ascii: "+") }

  private static func decoded(_ text: Substring.UTF8View) -> String {
    String(decoding: text, as: UTF8.self).percentDecoded(plusIsSpace: true)
  }

  /// The value of a header field of the client's, by its HTTP name in any case: `header("Last-Event-ID")`.
  public func header(_ name: String) -> String? {
    switch name.lowercased() {
    // CGI gives these two names of their own (RFC 3875, 4.1.2 and 4.1.3).
    case "content-type": return parameters["CONTENT_TYPE"]
    case "content-length": return parameters["CONTENT_LENGTH"]
    default:
      return parameters["HTTP_" + name.uppercased().replacing("-", with: "_")]
    }
  }
}

/// CGI variables, in the order in which they came. When a name comes twice the last value counts.
///
/// They stay in one block of bytes, because an open stream keeps them: a string is made of what is asked for.
public struct Parameters: Sendable, ExpressibleByDictionaryLiteral, Sequence {
  private struct Entry {
    var name: Range<Int32>
    var value: Range<Int32>
  }

  private var bytes: [UInt8] = []
  private var entries: [Entry] = []

  /// No variables.
  public init() {}

  public init(dictionaryLiteral elements: (String, String)...) {
    for (name, value) in elements { add(name, value) }
  }

  /// Two dozen short names are the usual: looking through them is as quick as hashing one. Of thousands, which a client
  /// can send as header fields, nearly all differ in their length.
  public subscript(name: String) -> String? {
    get {
      let count = name.utf8.count
      return entries.last { $0.name.count == count && bytes[$0.name].elementsEqual(name.utf8) }.map {
        String(decoding: bytes[$0.value], as: UTF8.self)
      }
    }
    set {
      entries.removeAll { bytes[$0.name].elementsEqual(name.utf8) }
      if let newValue { add(name, newValue) }
    }
  }

  /// Adds one `NAME=value`, as environments hold them. Without a `=` it is passed over.
  mutating func add(_ assignment: borrowing Span<UInt8>) {
    let start = bytes.count
    bytes.append(assignment)
    if let split = bytes[start...].firstIndex(of: UInt8(ascii: "=")) {
      entries.append(
        Entry(name: Int32(start)..<Int32(split), value: Int32(split + 1)..<Int32(bytes.count)))
    } else {
      bytes.removeLast(bytes.count - start)
    }
  }

  private mutating func add(_ name: String, _ value: String) {
    let start = Int32(bytes.count)
    bytes.append(contentsOf: name.utf8)
    let middle = Int32(bytes.count)
    bytes.append(contentsOf: value.utf8)
    entries.append(Entry(name: start..<middle, value: middle..<Int32(bytes.count)))
  }

  /// Those that the web server sets itself: their names do not begin with `HTTP_`.
  package var ofServer: [(name: String, value: String)] {
    entries.lazy.filter { !bytes[$0.name].starts(with: "HTTP_".utf8) }.map {
      (name: String(decoding: bytes[$0.name], as: UTF8.self), value: String(decoding: bytes[$0.value], as: UTF8.self))
    }
  }

  public func makeIterator() -> some IteratorProtocol<(name: String, value: String)> {
    entries.lazy.map {
      (name: String(decoding: bytes[$0.name], as: UTF8.self), value: String(decoding: bytes[$0.value], as: UTF8.self))
    }.makeIterator()
  }
}

extension [UInt8] {
  fileprivate subscript(range: Range<Int32>) -> ArraySlice<UInt8> {
    self[Int(range.lowerBound)..<Int(range.upperBound)]
  }
}

extension String {
  /// Percent-encoding undone (RFC 3986, 2.1). A `%` that no two hex digits follow stays as it is; bytes that are not
  /// UTF-8 become U+FFFD.
  package func percentDecoded(plusIsSpace: Bool) -> String {
    guard utf8.contains(where: { $0 == UInt8(ascii: "%") || $0 == UInt8(ascii: "+") }) else { return self }
    var decoded: [UInt8] = []
    var rest = Substring(self).utf8
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), rest.count >= 2, let value = UInt8(hex: rest.prefix(2)) {
        decoded.append(value)
        rest = rest.dropFirst(2)
      } else {
        decoded.append(byte == UInt8(ascii: "+") && plusIsSpace ? UInt8(ascii: " ") : byte)
      }
    }
    return String(decoding: decoded, as: UTF8.self)
  }
}
