import Bytes

/// Turns bytes that arrive in arbitrary pieces into text: a character that is not complete waits for its rest, and
/// invalid bytes become U+FFFD.
struct TextDecoder {
  /// The beginning of a character.
  private var rest: [UInt8] = []

  /// Returns the text of the next bytes. Empty if there is no complete character.
  mutating func decode(_ bytes: borrowing Span<UInt8>) -> String {
    var pending = exchange(&rest, with: [])
    pending.append(bytes)
    rest = Array(pending.suffix(Self.incompleteCount(of: pending)))
    return String(decoding: pending.dropLast(rest.count), as: UTF8.self)
  }

  /// Returns the text of what has not been completed.
  mutating func finish() -> String { String(decoding: exchange(&rest, with: []), as: UTF8.self) }

  /// Returns the number of bytes at the end that can be the beginning of a character (RFC 3629, section 3).
  private static func incompleteCount(of bytes: [UInt8]) -> Int {
    for (index, byte) in bytes.suffix(3).reversed().enumerated() {
      switch byte {
      // The middle of a character.
      case 0x80...0xBF: continue
      case 0xC2...0xDF where index < 1, 0xE0...0xEF where index < 2, 0xF0...0xF4: return index + 1
      default: return 0
      }
    }
    return 0
  }
}
