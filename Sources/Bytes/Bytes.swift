/// Byte utilities that the standard library lacks: conversions to and from spans, text and hexadecimal digits.
extension [UInt8] {
  /// Appends a copy of `bytes`.
  @inlinable package mutating func append(_ bytes: borrowing Span<UInt8>) {
    // Safe: the buffer is only read, and only within the closure.
    unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
  }
}

extension String {
  /// Decodes UTF-8. Replaces invalid sequences with U+FFFD.
  @inlinable package init(decodingUTF8 bytes: borrowing Span<UInt8>) {
    // Safe: the buffer is only read, and only within the closure.
    self = unsafe bytes.withUnsafeBufferPointer { unsafe String(decoding: $0, as: UTF8.self) }
  }
}

extension Sequence<UInt8> {
  /// Two lowercase hexadecimal digits per byte.
  package var hex: String {
    var digits: [UInt8] = []
    for byte in self {
      digits.append(UInt8(hexDigitOf: byte >> 4))
      digits.append(UInt8(hexDigitOf: byte & 0xF))
    }
    return String(decoding: digits, as: UTF8.self)
  }
}

extension UInt8 {
  /// The lowercase hexadecimal digit of a value from 0 to 15.
  package init(hexDigitOf value: UInt8) {
    self = value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
  }

  /// The value of a hexadecimal digit in either case. Returns nil for any other character.
  @inlinable package init?(hexDigit digit: UInt8) {
    switch digit {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): self = digit - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): self = digit - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): self = digit - UInt8(ascii: "A") + 10
    default: return nil
    }
  }

  /// Parses hexadecimal digits in either case. Returns nil if an element is not a digit, or if the value exceeds 255.
  package init?(hex digits: some Sequence<UInt8>) {
    var value: UInt8 = 0
    for digit in digits {
      guard value < 0x10, let digit = UInt8(hexDigit: digit) else { return nil }
      value = value << 4 | digit
    }
    self = value
  }
}
