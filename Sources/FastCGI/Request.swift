import Bytes

/// A request from the web server: CGI variables and a body (RFC 3875). A value that can be used on any thread.
public struct Request: Sendable {
  /// The CGI variables. Names that begin with `HTTP_` hold the client's header fields; the web server sets the others
  /// (`REQUEST_METHOD`, `fastcgi_param …`).
  public var parameters: Parameters
  /// The complete body. Empty if there is none.
  public var body: [UInt8]
  /// The reason why the body cannot be used; ``body`` is empty then.
  package var bodyIssue: BodyIssue?
  /// Whether no descriptor is available for this request's connection to a model.
  package var lacksDescriptor = false

  /// Creates a request, for tests or for calling functions that take one. The server creates its own.
  public init(parameters: Parameters, body: [UInt8] = []) {
    self.parameters = parameters
    self.body = body
  }

  package init(parameters: Parameters, body: [UInt8] = [], lacksDescriptor: Bool) {
    self.init(parameters: parameters, body: body)
    self.lacksDescriptor = lacksDescriptor
  }

  /// The request method in upper case; `"GET"` if the web server sets none.
  public var method: String { parameters["REQUEST_METHOD"]?.uppercased() ?? "GET" }

  /// The percent-decoded request path: `PATH_INFO` if it is not empty, else the path of `REQUEST_URI`, else
  /// `SCRIPT_NAME`.
  public var path: String {
    if let path = parameters["PATH_INFO"], !path.isEmpty { return path }
    return uriPath ?? parameters["SCRIPT_NAME"] ?? "/"
  }

  /// The percent-decoded path of `REQUEST_URI`.
  private var uriPath: String? {
    guard var uri = parameters["REQUEST_URI"].map({ $0[...] }), !uri.isEmpty else { return nil }
    // Some web servers pass on a target in absolute form (RFC 9112, 3.2.2) as it is.
    if !uri.hasPrefix("/"), let authority = uri.firstRange(of: "://") {
      uri = uri[authority.upperBound...].drop { $0 != "/" && $0 != "?" }
      if !uri.hasPrefix("/") { uri = "/" + uri }
    }
    return String(uri.prefix { $0 != "?" && $0 != "#" }).percentDecoded(plusIsSpace: false)
  }

  /// The path of `REQUEST_URI` if `PATH_INFO` is only the end of it, because the web server takes the beginning for the
  /// name of a program (`SCRIPT_NAME`).
  package var unsplitPath: String? {
    guard let end = parameters["PATH_INFO"], !end.isEmpty, let path = uriPath, path != end, path.hasSuffix(end) else {
      return nil
    }
    return path
  }

  /// Returns the value of the first query item called `name`, form-decoded (`+` is a space), or nil.
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

  /// Returns the value of a client header field by its case-insensitive HTTP name, such as `header("Last-Event-ID")`,
  /// or nil.
  public func header(_ name: String) -> String? {
    let variable = name.utf8.lazy.map(Self.inVariable)
    // CGI has separate variables for these two (RFC 3875, 4.1.2 and 4.1.3).
    let isSeparate = variable.elementsEqual("CONTENT_TYPE".utf8) || variable.elementsEqual("CONTENT_LENGTH".utf8)
    return parameters.value(prefix: isSeparate ? "" : "HTTP_", variable)
  }

  /// Returns the character of a CGI variable's name for one of a header field's name (RFC 3875, 4.1.18).
  private static func inVariable(_ byte: UInt8) -> UInt8 {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - 0x20
    case UInt8(ascii: "-"): UInt8(ascii: "_")
    default: byte
    }
  }
}

/// The reason why the body of a request cannot be used.
package enum BodyIssue: Sendable, Equatable {
  /// It exceeds the server's limit, and is not kept.
  case tooLarge
  /// It ended early.
  case incomplete(received: Int, announced: Int)
}

extension Request {
  /// Sets the body to what has been received, up to `CONTENT_LENGTH` (RFC 3875, 4.2), or ``bodyIssue``. Without a valid
  /// length, as web servers send for a chunked body, the body is all that has been received.
  ///
  /// - Parameter received: at most one byte more than `limit`.
  package mutating func setBody(_ received: [UInt8], limit: Int) {
    let announced = announcedBodyBytes
    if announced ?? received.count > limit {
      bodyIssue = .tooLarge
    } else if let announced, received.count < announced {
      bodyIssue = .incomplete(received: received.count, announced: announced)
    } else {
      body = received.count == announced ?? received.count ? received : Array(received.prefix(announced ?? 0))
    }
  }

  /// The length of the body that the web server announces; nil if it does not know it. Caddy announces -1 then.
  package var announcedBodyBytes: Int? { parameters["CONTENT_LENGTH"].flatMap(Int.init).flatMap { $0 < 0 ? nil : $0 } }
}

/// CGI variables in the order received. If a name occurs more than once, its last value applies.
///
/// All names and values share one byte buffer, because an open stream retains them. Strings are created on access.
public struct Parameters: Sendable, ExpressibleByDictionaryLiteral, Sequence {
  private struct Entry {
    var name: Range<Int32>
    var value: Range<Int32>
  }

  private var bytes: [UInt8] = []
  private var entries: [Entry] = []

  /// Creates an empty set of variables.
  public init() {}

  public init(dictionaryLiteral elements: (String, String)...) {
    for (name, value) in elements { add(name, value) }
  }

  /// The value of the variable `name`, or nil.
  ///
  /// The lookup is a linear search. A typical request has about two dozen short names, for which hashing is no faster.
  /// Of the hundreds of names that a client can send as header fields, comparing lengths first eliminates most.
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

  /// Returns the value of the variable whose name is `prefix` followed by `name`, or nil. Creates no string for the name,
  /// because several header fields are looked up per request.
  fileprivate func value(prefix: String, _ name: some Collection<UInt8>) -> String? {
    let count = prefix.utf8.count + name.count
    return entries.last { entry in
      guard entry.name.count == count else { return false }
      let variable = bytes[entry.name]
      return variable.starts(with: prefix.utf8) && variable.dropFirst(prefix.utf8.count).elementsEqual(name)
    }.map { String(decoding: bytes[$0.value], as: UTF8.self) }
  }

  mutating func reserveCapacity(bytes byteCount: Int, count: Int) {
    bytes.reserveCapacity(byteCount)
    entries.reserveCapacity(count)
  }

  /// Appends one `NAME=value` assignment, as in an environment. Ignores an assignment without `=`.
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

  /// The variables set by the web server itself, whose names do not begin with `HTTP_`.
  package var serverParameters: [(name: String, value: String)] {
    entries.lazy.filter { !bytes[$0.name].starts(with: "HTTP_".utf8) }.map {
      (name: String(decoding: bytes[$0.name], as: UTF8.self), value: String(decoding: bytes[$0.value], as: UTF8.self))
    }
  }

  /// Returns the assignments, `NAME=value` with a line end each, of the variables whose names satisfy `isSelected`.
  package func assignments(of isSelected: (ArraySlice<UInt8>) -> Bool) -> [UInt8] {
    var selected: [UInt8] = []
    for entry in entries where isSelected(bytes[entry.name]) {
      selected += bytes[entry.name.lowerBound..<entry.value.upperBound]
      selected.append(0x0A)
    }
    return selected
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
  /// Returns the percent-decoded text (RFC 3986, 2.1). A `%` that is not followed by two hex digits is preserved;
  /// invalid UTF-8 becomes U+FFFD.
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
