import Bytes
import Glibc

/// An incremental parser for a Server-Sent Events stream, which accepts chunks of any size (WHATWG HTML, 9.2.6).
///
/// Only CR, LF and CRLF end a line. One BOM at the start is dropped. A block without data dispatches nothing, and an
/// incomplete block at the end of the stream is never dispatched. The parser is a value without I/O:
/// ``feed(_:onOtherField:_:)`` calls back for every event. It reuses its buffers, so an event that is no longer than
/// the previous ones needs no allocation.
package struct EventStreamParser: Sendable {
  /// The error of a line, or of the data, type or id of an event, that exceeds its limit.
  package struct TooLong: Error, Equatable, Sendable {
    /// The limit, in bytes.
    package let limit: Int
  }

  private let maximumEventBytes: Int
  /// The start of a line whose end has not arrived yet.
  private var line: [UInt8] = []
  private var data: [UInt8] = []
  private var type: [UInt8] = []
  private var lastEventID: [UInt8] = []
  private var hasData = false
  /// The number of BOM bytes seen, or 3 after the start of the stream.
  private var start = 0
  /// Whether the last byte was a CR, in which case a following LF belongs to the same line end.
  private var isAfterCR = false

  /// The largest buffer capacity retained for the next event, and the maximum size of types and ids, in bytes.
  private static let maximumRetainedCapacity = 64 * 1024
  private static let bom: [UInt8] = [0xEF, 0xBB, 0xBF]

  /// - Parameter maximumEventBytes: the maximum size of a line, and of the data of one event. More is an error.
  package init(maximumEventBytes: Int = 1 << 20) { self.maximumEventBytes = maximumEventBytes }

  /// A function that receives an event: its type, which is empty for `message`, its data, and the last event id. All
  /// three are valid only during the call.
  package typealias Dispatch = (
    _ type: borrowing Span<UInt8>, _ data: borrowing Span<UInt8>, _ lastEventID: borrowing Span<UInt8>
  ) -> Void

  package typealias OnField = (_ name: borrowing Span<UInt8>, _ value: borrowing Span<UInt8>) -> Void

  /// Parses `bytes` and calls `dispatch` with each event that they complete.
  ///
  /// - Parameter onOtherField: called with the name and the value of each field that is neither `data` nor `id`,
  ///   including fields that the standard ignores. Both are valid only during the call.
  /// - Throws: ``TooLong``, after which the parser must not be used.
  package mutating func feed(
    _ bytes: borrowing Span<UInt8>, onOtherField: OnField = { _, _ in }, _ dispatch: Dispatch
  ) throws(TooLong) {
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
    if isAfterCR, index < bytes.count {
      if bytes[index] == 0x0A { index += 1 }
      isAfterCR = false
    }
    var ends = LineEnds(from: index)
    // The only line of an event's data, which is dispatched from here if the event ends in these bytes. This is the
    // usual case, without a copy.
    var ownData: Range<Int>?
    while let end = ends.next(in: bytes) {
      if line.isEmpty {
        if index == end, let value = ownData.take() {
          dispatch(type.span, bytes.extracting(value), lastEventID.span)
          if !type.isEmpty { type.removeAll(keepingCapacity: true) }
        } else if !hasData, ownData == nil, let value = dataValue(of: bytes, index..<end) {
          ownData = value
        } else {
          if let value = ownData.take() { try bufferData(bytes.extracting(value)) }
          try processLine(bytes.extracting(index..<end), onOtherField, dispatch)
        }
      } else {
        try bufferLine(bytes.extracting(index..<end))
        let completeLine = line
        line = []
        try processLine(completeLine.span, onOtherField, dispatch)
        if completeLine.capacity <= Self.maximumRetainedCapacity {
          line = completeLine
          line.removeAll(keepingCapacity: true)
        }
      }
      index = ends.position
      isAfterCR = end == bytes.count - 1 && bytes[end] == 0x0D
    }
    if let ownData { try bufferData(bytes.extracting(ownData)) }
    try bufferLine(bytes.extracting(index..<bytes.count))
  }

  /// Returns the range of the value if a line is a `data` field within the size limit.
  private func dataValue(of bytes: borrowing Span<UInt8>, _ line: Range<Int>) -> Range<Int>? {
    guard line.count >= 5, bytes.extracting(line.lowerBound..<(line.lowerBound + 5)).equals("data:") else { return nil }
    var start = line.lowerBound + 5
    if start < line.upperBound, bytes[start] == UInt8(ascii: " ") { start += 1 }
    return line.upperBound - start < maximumEventBytes ? start..<line.upperBound : nil
  }

  private mutating func bufferData(_ value: borrowing Span<UInt8>) throws(TooLong) {
    guard data.count + value.count < maximumEventBytes else { throw TooLong(limit: maximumEventBytes) }
    data.append(value)
    data.append(0x0A)
    hasData = true
  }

  /// Parses `bytes` like ``feed(_:onOtherField:_:)`` and returns the completed events as values.
  package mutating func events(in bytes: borrowing Span<UInt8>) throws(TooLong) -> [ServerSentEvent] {
    var events: [ServerSentEvent] = []
    try feed(bytes) { type, data, lastEventID in
      events.append(
        ServerSentEvent(
          type: type.isEmpty ? "message" : String(decodingUTF8: type), data: String(decodingUTF8: data),
          lastEventID: String(decodingUTF8: lastEventID)))
    }
    return events
  }

  private mutating func bufferLine(_ part: borrowing Span<UInt8>) throws(TooLong) {
    guard line.count + part.count <= maximumEventBytes else { throw TooLong(limit: maximumEventBytes) }
    line.append(part)
  }

  private mutating func processLine(
    _ line: borrowing Span<UInt8>, _ onOtherField: OnField, _ dispatch: Dispatch
  ) throws(TooLong) {
    if line.isEmpty {
      if hasData {
        // Every data line is stored with a trailing LF; the last one is not part of the data.
        dispatch(type.span, data.span.extracting(0..<(data.count - 1)), lastEventID.span)
      }
      data.removeAll(keepingCapacity: data.capacity <= Self.maximumRetainedCapacity)
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
      try bufferData(value)
    } else if name.equals("event") {
      guard value.count <= Self.maximumRetainedCapacity else { throw TooLong(limit: Self.maximumRetainedCapacity) }
      type.removeAll(keepingCapacity: true)
      type.append(value)
      onOtherField(name, value)
    } else if name.equals("id") {
      guard value.count <= Self.maximumRetainedCapacity else { throw TooLong(limit: Self.maximumRetainedCapacity) }
      for index in value.indices where value[index] == 0 { return }
      lastEventID.removeAll(keepingCapacity: true)
      lastEventID.append(value)
    } else if colon > 0 {
      // The standard ignores all other fields. A line with an empty field name is a comment.
      onOtherField(name, value)
    }
  }
}

/// A scanner for line ends in a chunk. It uses memchr(3) and examines each byte at most twice.
private struct LineEnds {
  /// The start of the next line.
  private(set) var position: Int
  /// The next LF and the next CR from `position` on, as of the last search; the byte count if there is none.
  private var nextLF = -1
  private var nextCR = -1

  init(from position: Int) { self.position = position }

  /// Returns the end of the line at ``position`` and advances ``position`` past it, or returns nil if the line is
  /// incomplete. A CR in the last byte is a complete line end: the caller must drop an LF that follows.
  mutating func next(in bytes: borrowing Span<UInt8>) -> Int? {
    if nextLF < position { nextLF = bytes.firstIndex(of: 0x0A, from: position) }
    if nextCR < position { nextCR = bytes.firstIndex(of: 0x0D, from: position) }
    let end = min(nextLF, nextCR)
    guard end < bytes.count else { return nil }
    position = end + 1
    if end == nextCR, nextLF == position, position < bytes.count { position += 1 }
    return end
  }
}

extension Span<UInt8> {
  /// Returns the index of the first `byte` at or after `start`, or the count.
  fileprivate func firstIndex(of byte: UInt8, from start: Int) -> Int {
    // Safe: memchr reads `count - start` bytes from `start`, all of which are in the buffer.
    unsafe withUnsafeBytes { buffer in
      guard start < buffer.count, let base = buffer.baseAddress else { return buffer.count }
      let found = unsafe memchr(base + start, CInt(byte), buffer.count - start)
      return unsafe found.map { unsafe UnsafeRawPointer($0) - base } ?? buffer.count
    }
  }

  /// Returns whether these are the bytes of `text`.
  package func equals(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    return text.withUTF8Buffer { expected in
      for index in indices where unsafe self[index] != expected[index] { return false }
      return true
    }
  }
}
