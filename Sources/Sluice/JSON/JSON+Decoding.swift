import FoundationEssentials

extension JSON {
  /// Reads a JSON text.
  ///
  /// - Throws: ``Failure/Code/badRequest`` when it is none.
  init(parsing text: [UInt8]) throws(Failure) {
    do { self = try JSONDecoder().decode(JSON.self, from: Data(text)) } catch {
      throw Failure(.badRequest, "The body is not valid JSON.")
    }
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
