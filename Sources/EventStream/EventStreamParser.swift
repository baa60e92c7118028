/// Reads a Server-Sent Events stream as it arrives, in pieces of any size (WHATWG HTML, 9.2.6).
///
/// Lines end with CR, LF or CRLF and with nothing else; one BOM at the start is dropped; a block without data
/// dispatches nothing; a block that the end of the stream cuts off is never dispatched. A value without I/O: feed it
/// and it calls back. Its buffers are used again, so it allocates nothing for an event no longer than those before.
public struct EventStreamParser: Sendable {
  /// A line or the data of one event grew beyond the limit.
  public struct TooLong: Error, Equatable, Sendable {
    /// The limit, in bytes.
    public let limit: Int
  }

  private let maximumEventBytes: Int
  /// The part of a line that has arrived without its end.
  private var line: [UInt8] = []
  private var data: [UInt8] = []
  private var type: [UInt8] = []
  private var lastEventID: [UInt8] = []
  private var hasData = false
  /// How many bytes of a BOM have been seen; 3 once the start of the stream is past.
  private var start = 0
  /// Whether the last byte was a CR, after which an LF belongs to the same line end.
  private var isAfterCR = false

  private static let bom: [UInt8] = [0xEF, 0xBB, 0xBF]

  /// - Parameter maximumEventBytes: the most bytes of a line, and of the data of one event. More is an error.
  public init(maximumEventBytes: Int = 1 << 20) { self.maximumEventBytes = maximumEventBytes }

  /// What is called with an event: its type, which is empty for `message`, its data, and the last event id. All
  /// three are good for the call only.
  public typealias Dispatch = (
    _ type: borrowing Span<UInt8>, _ data: borrowing Span<UInt8>, _ lastEventID: borrowing Span<UInt8>
  ) -> Void

  /// Takes in `bytes` and calls `dispatch` with each event that they complete.
  ///
  /// - Throws: ``TooLong``, after which the parser is of no more use.
  public mutating func feed(_ bytes: borrowing Span<UInt8>, _ dispatch: Dispatch) throws(TooLong) {
    var index = 0
    while start < 3, index < bytes.count {
      if bytes[index] == Self.bom[start] {
        start += 1
        index += 1
      } else {
        line.append(contentsOf: Self.bom[..<start])
        start = 3
      }
    }
    var lineStart = index
    while index < bytes.count {
      let byte = bytes[index]
      index += 1
      if byte != 0x0A && byte != 0x0D {
        isAfterCR = false
        continue
      }
      if byte == 0x0A && isAfterCR {
        isAfterCR = false
        lineStart = index
        continue
      }
      isAfterCR = byte == 0x0D
      if line.isEmpty {
        try take(bytes.extracting(lineStart..<(index - 1)), dispatch)
      } else {
        try keep(bytes.extracting(lineStart..<(index - 1)))
        let whole = line
        line.removeAll(keepingCapacity: true)
        try take(whole.span, dispatch)
      }
      lineStart = index
    }
    try keep(bytes.extracting(lineStart..<bytes.count))
  }

  /// Like ``feed(_:_:)``, with whole events as values.
  public mutating func events(in bytes: borrowing Span<UInt8>) throws(TooLong) -> [ServerSentEvent] {
    var events: [ServerSentEvent] = []
    try feed(bytes) { type, data, lastEventID in
      events.append(
        ServerSentEvent(
          type: type.isEmpty ? "message" : String(decodingUTF8: type), data: String(decodingUTF8: data),
          lastEventID: String(decodingUTF8: lastEventID)))
    }
    return events
  }

  private mutating func keep(_ part: borrowing Span<UInt8>) throws(TooLong) {
    guard line.count + part.count <= maximumEventBytes else { throw TooLong(limit: maximumEventBytes) }
    line.append(part)
  }

  private mutating func take(_ line: borrowing Span<UInt8>, _ dispatch: Dispatch) throws(TooLong) {
    if line.isEmpty {
      if hasData {
        // Every data line ended with an LF, of which the last is not part of the data.
        dispatch(type.span, data.span.extracting(0..<(data.count - 1)), lastEventID.span)
      }
      data.removeAll(keepingCapacity: true)
      type.removeAll(keepingCapacity: true)
      hasData = false
      return
    }
    var colon = 0
    while colon < line.count, line[colon] != UInt8(ascii: ":") { colon += 1 }
    var valueStart = min(colon + 1, line.count)
    if valueStart < line.count, line[valueStart] == UInt8(ascii: " ") { valueStart += 1 }
    let value = line.extracting(valueStart..<line.count)
    let name = line.extracting(0..<colon)
    if name.equals("data") {
      guard data.count + value.count < maximumEventBytes else { throw TooLong(limit: maximumEventBytes) }
      data.append(value)
      data.append(0x0A)
      hasData = true
    } else if name.equals("event") {
      type.removeAll(keepingCapacity: true)
      type.append(value)
    } else if name.equals("id") {
      for index in value.indices where value[index] == 0 { return }
      lastEventID.removeAll(keepingCapacity: true)
      lastEventID.append(value)
    }
    // `retry` and every other field, a comment's empty name among them, are passed over.
  }
}

extension Span<UInt8> {
  fileprivate func equals(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    return text.withUTF8Buffer { expected in
      for index in indices where unsafe self[index] != expected[index] { return false }
      return true
    }
  }
}

extension [UInt8] {
  fileprivate mutating func append(_ bytes: borrowing Span<UInt8>) {
    // Safe: the buffer is only read, within the closure.
    unsafe bytes.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
  }
}

extension String {
  fileprivate init(decodingUTF8 bytes: borrowing Span<UInt8>) {
    // Safe: the buffer is only read, within the closure.
    self = unsafe bytes.withUnsafeBufferPointer { unsafe String(decoding: $0, as: UTF8.self) }
  }
}
