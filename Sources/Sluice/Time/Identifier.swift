import Bytes

/// Ids that sort by their time of creation: UUID version 7 (RFC 9562, 5.7).
enum Identifier {
  static func make() -> String {
    let milliseconds = UInt64(Timestamp.milliseconds())
    var generator = SystemRandomNumberGenerator()
    let high = milliseconds << 16 | 0x7000 | generator.next() & 0x0FFF
    let low = 0x8000_0000_0000_0000 | generator.next() & 0x3FFF_FFFF_FFFF_FFFF
    let bytes = [high, low].flatMap { half in (0..<8).map { UInt8(truncatingIfNeeded: half >> (56 - 8 * $0)) } }
    return [0..<4, 4..<6, 6..<8, 8..<10, 10..<16].map { bytes[$0].hex }.joined(separator: "-")
  }

  /// Returns whether `text` is a valid id, such as a client can choose for a session: `[A-Za-z0-9_-]{1,64}`.
  static func isValid(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count) && text.utf8.allSatisfy(isValid)
  }

  /// Returns whether ids, and directory names of users, can contain this character: `[A-Za-z0-9_-]`.
  static func isValid(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "a")...UInt8(ascii: "z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"):
      true
    default: false
    }
  }
}
