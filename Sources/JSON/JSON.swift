import Bytes

/// A JSON value (RFC 8259). An object preserves the order of its members.
public enum JSON: Sendable, Equatable {
  /// `null`.
  case null
  /// `true` or `false`.
  case bool(Bool)
  /// An integer.
  case integer(Int)
  /// A floating-point number.
  case number(Double)
  /// A number in its original text, for numbers that `integer` cannot represent without loss.
  case literal(String)
  /// A string.
  case string(String)
  /// An array.
  case array([JSON])
  /// An object.
  case object(Members)

  /// The members of an object.
  public struct Members: Sendable, Equatable, ExpressibleByDictionaryLiteral {
    /// The members in their original order.
    public private(set) var all: [Member] = []
    /// The position of the last member with each name; empty up to ``maximumUnindexed`` members.
    private var positions: [String: Int] = [:]

    /// The largest number of members for which a linear search is as fast as hashing a name.
    private static let maximumUnindexed = 16

    /// A name and its value.
    public struct Member: Sendable, Equatable {
      /// The name.
      public var name: String
      /// The value.
      public var value: JSON

      /// Creates a member for ``Members/init(_:)``.
      public init(name: String, value: JSON) {
        self.name = name
        self.value = value
      }
    }

    public init(dictionaryLiteral elements: (String, JSON)...) {
      self.init(elements.map { Member(name: $0, value: $1) })
    }

    /// Creates an object from `members`, without changes. If several have the same name, the last one is effective.
    public init(_ members: [Member] = []) {
      all = members
      buildIndex()
    }

    public static func == (a: Members, b: Members) -> Bool { a.all == b.all }

    /// Sets the members of `other`, in their order. An existing member receives the new value.
    public mutating func merge(_ other: Members) {
      for member in other.all { self[member.name] = member.value }
    }

    /// Appends the members of `other` without a check for existing names. Intended for many new members.
    public mutating func append(_ other: Members) {
      all += other.all
      buildIndex()
    }

    /// The value of the member with a name, or nil if there is none. Setting nil removes the member.
    public subscript(name: String) -> JSON? {
      get { position(of: name).map { all[$0].value } }
      set {
        if let newValue, let place = position(of: name) {
          all[place].value = newValue
        } else if let newValue {
          all.append(Member(name: name, value: newValue))
          if !positions.isEmpty { positions[name] = all.count - 1 } else { buildIndex() }
        } else if position(of: name) != nil {
          all.removeAll { $0.name == name }
          buildIndex()
        }
      }
    }

    /// Changes the value of an existing member in place, so that it is not copied. Has no effect if there is none.
    package mutating func update(_ name: String, _ change: (inout JSON) -> Void) {
      guard let place = position(of: name) else { return }
      change(&all[place].value)
    }

    private func position(of name: String) -> Int? {
      positions.isEmpty ? all.lastIndex { $0.name == name } : positions[name]
    }

    private mutating func buildIndex() {
      positions.removeAll()
      guard all.count > Self.maximumUnindexed else { return }
      positions.reserveCapacity(all.count)
      for (place, member) in all.enumerated() { positions[member.name] = place }
    }
  }

  /// The value of the member `name`, if this is an object that has one.
  public subscript(name: String) -> JSON? {
    guard case .object(let members) = self else { return nil }
    return members[name]
  }

  /// The text, if this is a string.
  public var string: String? {
    guard case .string(let text) = self else { return nil }
    return text
  }

  /// The value, if this is `true` or `false`.
  public var bool: Bool? {
    guard case .bool(let value) = self else { return nil }
    return value
  }

  /// The elements, if this is an array.
  public var array: [JSON]? {
    guard case .array(let elements) = self else { return nil }
    return elements
  }

  /// The members, if this is an object.
  public var object: Members? {
    guard case .object(let members) = self else { return nil }
    return members
  }

  /// The number, if this is an integer, or a literal with an integral value, that fits in `Int`.
  public var integer: Int? {
    switch self {
    case .integer(let number): number
    // A literal such as 3.0 also has an integral value.
    case .literal(let text): Double(text).flatMap(Int.init(exactly:))
    default: nil
    }
  }

  /// The number, if this is one.
  public var number: Double? {
    switch self {
    case .integer(let number): Double(number)
    case .number(let number): number
    case .literal(let text): Double(text)
    default: nil
    }
  }

  /// The JSON text of the value, without white space.
  public var encoded: [UInt8] {
    var buffer: [UInt8] = []
    buffer.append(json: self)
    return buffer
  }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByDictionaryLiteral, ExpressibleByArrayLiteral,
  ExpressibleByBooleanLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  public init(integerLiteral value: Int) { self = .integer(value) }
  public init(floatLiteral value: Double) { self = .number(value) }
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }
  public init(dictionaryLiteral elements: (String, JSON)...) {
    self = .object(Members(elements.map { Members.Member(name: $0, value: $1) }))
  }
}

extension [UInt8] {
  /// Appends the text of `json`, without white space.
  package mutating func append(json: JSON) {
    switch json {
    case .null: append(contentsOf: "null".utf8)
    case .bool(let value): append(contentsOf: (value ? "true" : "false").utf8)
    case .integer(let value): append(contentsOf: String(value).utf8)
    // JSON cannot represent infinity and NaN.
    case .number(let value): append(contentsOf: (value.isFinite ? String(value) : "null").utf8)
    case .literal(let text): append(contentsOf: text.utf8)
    case .string(let value): append(jsonString: value)
    case .array(let values):
      append(UInt8(ascii: "["))
      for (index, value) in values.enumerated() {
        if index > 0 { append(UInt8(ascii: ",")) }
        append(json: value)
      }
      append(UInt8(ascii: "]"))
    case .object(let members):
      append(UInt8(ascii: "{"))
      for (index, member) in members.all.enumerated() {
        if index > 0 { append(UInt8(ascii: ",")) }
        append(jsonString: member.name)
        append(UInt8(ascii: ":"))
        append(json: member.value)
      }
      append(UInt8(ascii: "}"))
    }
  }

  /// Appends `text` as a JSON string, including quotes. Escapes only the characters that JSON requires, which include
  /// line ends.
  package mutating func append(jsonString text: String) { append(jsonString: text.utf8Span.span) }

  /// Appends text in UTF-8 as a JSON string, like ``append(jsonString:)-(String)``. Runs for every token.
  package mutating func append(jsonString span: borrowing Span<UInt8>) {
    append(UInt8(ascii: "\""))
    var plainStart = 0
    for index in span.indices {
      let byte = span[index]
      if byte >= 0x20, byte != UInt8(ascii: "\""), byte != UInt8(ascii: "\\") { continue }
      append(span.extracting(plainStart..<index))
      plainStart = index + 1
      append(escapeOf: byte)
    }
    append(span.extracting(plainStart..<span.count))
    append(UInt8(ascii: "\""))
  }

  private mutating func append(escapeOf byte: UInt8) {
    append(UInt8(ascii: "\\"))
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"): append(byte)
    case 0x0A: append(UInt8(ascii: "n"))
    case 0x0D: append(UInt8(ascii: "r"))
    case 0x09: append(UInt8(ascii: "t"))
    default:
      append(contentsOf: "u00".utf8)
      append(byte < 0x10 ? UInt8(ascii: "0") : UInt8(ascii: "1"))
      append(contentsOf: String(byte & 0xF, radix: 16).utf8)
    }
  }
}
