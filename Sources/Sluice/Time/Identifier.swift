import Bytes

/// Ids that sort by their time of creation: UUID version 7 (RFC 9562, 5.7).
enum Identifier {
  static func make() -> String {
    let milliseconds = UInt64(Timestamp.milliseconds())
    let random = UInt128.random(in: .min ... .max)
    let high = milliseconds << 16 | 0x7000 | UInt64(truncatingIfNeeded: random >> 64) & 0x0FFF
    let low = 0x8000_0000_0000_0000 | UInt64(truncatingIfNeeded: random) & 0x3FFF_FFFF_FFFF_FFFF
    var text: [UInt8] = []
    text.reserveCapacity(36)
    for half in [high, low] {
      for shift in stride(from: 60, through: 0, by: -4) {
        // The digits are grouped 8-4-4-4-12.
        if [8, 13, 18, 23].contains(text.count) { text.append(UInt8(ascii: "-")) }
        text.append(UInt8(hexDigitOf: UInt8(truncatingIfNeeded: half >> UInt64(shift)) & 0xF))
      }
    }
    return String(decoding: text, as: UTF8.self)
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
