/// An encoder for the records of a Server-Sent Events stream (WHATWG HTML, 9.2.5). It has no state and does no I/O.
package enum EventStreamEncoder {
  /// A comment that keeps a connection alive and that clients ignore: a colon and a single newline. A blank line after
  /// it would be an event without data, which some clients mishandle.
  package static let heartbeat: [UInt8] = Array(":\n".utf8)

  /// Appends one event.
  ///
  /// - Parameters:
  ///   - event: the type of the event; nil omits the field, which means `message`.
  ///   - data: the data. The client receives every line end in it, CR, LF or CRLF, as LF.
  package static func encode(event: StaticString? = nil, data: borrowing Span<UInt8>, into buffer: inout [UInt8]) {
    if let event {
      buffer.append(contentsOf: "event: ".utf8)
      event.withUTF8Buffer { unsafe buffer.append(contentsOf: $0) }
      buffer.append(0x0A)
    }
    buffer.append(contentsOf: "data: ".utf8)
    var index = 0
    while index < data.count {
      let byte = data[index]
      index += 1
      if byte == 0x0D || byte == 0x0A {
        if byte == 0x0D, index < data.count, data[index] == 0x0A { index += 1 }
        buffer.append(contentsOf: "\ndata: ".utf8)
      } else {
        buffer.append(byte)
      }
    }
    buffer.append(0x0A)
    buffer.append(0x0A)
  }

  /// Appends the start of an event whose data is one line. The caller appends the line, then calls ``endLine(_:)``.
  ///
  /// The hot path uses this function to write JSON without line ends directly to the buffer.
  package static func beginLine(event: StaticString? = nil, into buffer: inout [UInt8]) {
    if let event {
      buffer.append(contentsOf: "event: ".utf8)
      event.withUTF8Buffer { unsafe buffer.append(contentsOf: $0) }
      buffer.append(contentsOf: "\ndata: ".utf8)
    } else {
      buffer.append(contentsOf: "data: ".utf8)
    }
  }

  /// Appends the end of an event started by ``beginLine(event:into:)``.
  package static func endLine(_ buffer: inout [UInt8]) {
    buffer.append(0x0A)
    buffer.append(0x0A)
  }
}
