import FoundationEssentials

extension JSON {
  /// Reads a JSON text.
  ///
  /// - Throws: ``Failure/Code/badRequest`` when it is none.
  init(parsing text: [UInt8]) throws(Failure) {
    guard Self.depth(of: text) <= maximumDepth else {
      throw Failure(.badRequest, "The body is nested more than \(maximumDepth) deep.")
    }
    do { self = try JSONDecoder().decode(JSON.self, from: Data(text)) } catch {
      throw Failure(.badRequest, "The body is not valid JSON.")
    }
  }
}

/// How deep arrays and objects may be nested. JSONDecoder's time for a value grows with the cube of its depth.
private let maximumDepth = 16

extension JSON {
  /// How deep arrays and objects are nested in `text`, which need not be JSON.
  static func depth(of text: [UInt8]) -> Int {
    var (depth, deepest) = (0, 0)
    var (isInString, isEscaped) = (false, false)
    for byte in text {
      if isInString {
        if isEscaped {
          isEscaped = false
        } else if byte == UInt8(ascii: "\\") {
          isEscaped = true
        } else if byte == UInt8(ascii: "\"") {
          isInString = false
        }
        continue
      }
      switch byte {
      case UInt8(ascii: "\""): isInString = true
      case UInt8(ascii: "["), UInt8(ascii: "{"):
        depth += 1
        deepest = max(deepest, depth)
      case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
      default: break
      }
    }
    return deepest
  }
}

extension JSON: Decodable {
  public init(from decoder: any Decoder) throws {
    if let container = try? decoder.container(keyedBy: Name.self) {
      self = .object(
        Members(
          try container.allKeys.map {
            Members.Member(name: $0.stringValue, value: try container.decode(JSON.self, forKey: $0))
          }))
      return
    }
    if var container = try? decoder.unkeyedContainer() {
      var values: [JSON] = []
      while !container.isAtEnd { values.append(try container.decode(JSON.self)) }
      self = .array(values)
      return
    }
    let container = try decoder.singleValueContainer()
    if let value = try? container.decode(String.self) {
      self = .string(value)
    } else if container.decodeNil() {
      self = .null
    } else if let value = try? container.decode(Bool.self) {
      self = .bool(value)
    } else if let value = try? container.decode(Int.self) {
      self = .integer(value)
    } else {
      self = .number(try container.decode(Double.self))
    }
  }

  private struct Name: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
  }
}
