/// The frames that a server sends (RFC 6455, 5.2). They are not masked.
package enum Frame {
  /// The type of a frame.
  package enum Opcode: UInt8, Sendable {
    case text = 0x1
    case close = 0x8
    case ping = 0x9
    case pong = 0xA
  }

  /// Appends the header of an unfragmented frame. Its payload of `count` bytes must follow.
  package static func appendHeader(_ opcode: Opcode, payloadBytes count: Int, to output: inout [UInt8]) {
    output.append(0x80 | opcode.rawValue)
    let lengthBytes: Int
    switch count {
    case ..<126:
      output.append(UInt8(count))
      return
    case ...0xFFFF:
      output.append(126)
      lengthBytes = 2
    default:
      output.append(127)
      lengthBytes = 8
    }
    for index in (0..<lengthBytes).reversed() { output.append(UInt8(truncatingIfNeeded: count >> (8 * index))) }
  }

  /// Appends a close frame.
  package static func appendClose(_ code: CloseCode, to output: inout [UInt8]) {
    appendHeader(.close, payloadBytes: 2, to: &output)
    output.append(UInt8(truncatingIfNeeded: code.rawValue >> 8))
    output.append(UInt8(truncatingIfNeeded: code.rawValue))
  }
}

/// The reason why a connection is closed (RFC 6455, 7.4.1).
package enum CloseCode: UInt16, Sendable {
  case normal = 1000
  case goingAway = 1001
  case protocolError = 1002
  case unsupportedData = 1003
  case invalidPayload = 1007
  case policyViolation = 1008
  case tooLarge = 1009
  case internalError = 1011
}
