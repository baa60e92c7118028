import EventStream
import JSON

/// The records of a stream, encoded one after another. Dialects provide their content; this type frames them (WHATWG
/// HTML, 9.2.5).
public struct Records {
  var bytes: [UInt8]

  init(_ bytes: consuming [UInt8]) { self.bytes = bytes }

  /// Creates an empty value, for tests of dialects. Sluice creates those that are sent.
  public init() { bytes = [] }

  /// The encoded records as text.
  public var text: String { String(decoding: bytes, as: UTF8.self) }

  /// Appends a record with JSON data.
  ///
  /// - Parameters:
  ///   - event: the record's type; nil means `message`, which an EventSource passes to its `onmessage` handler.
  ///   - data: the record's data.
  public mutating func append(event: StaticString? = nil, _ data: JSON) {
    EventStreamEncoder.beginLine(event: event, into: &bytes)
    bytes.append(json: data)
    EventStreamEncoder.endLine(&bytes)
  }

  /// Appends a record in which only one string varies, such as a delta.
  public mutating func append(_ template: borrowing RecordTemplate, _ text: String) {
    append(template, utf8: text.utf8Span.span)
  }

  /// Appends a record in which only one string varies, which is given as UTF-8.
  public mutating func append(_ template: borrowing RecordTemplate, utf8 text: borrowing Span<UInt8>) {
    bytes.append(contentsOf: template.start)
    bytes.append(jsonString: text)
    bytes.append(contentsOf: template.end)
  }

  /// Appends a record in which only one JSON value varies.
  mutating func append(_ template: borrowing RecordTemplate, _ value: JSON) {
    bytes.append(contentsOf: template.start)
    bytes.append(json: value)
    bytes.append(contentsOf: template.end)
  }

  /// Appends a record with a string and a number, separated by the template's middle part.
  mutating func append(_ template: borrowing RecordTemplate, utf8 text: borrowing Span<UInt8>, number: Int) {
    bytes.append(contentsOf: template.start)
    bytes.append(jsonString: text)
    bytes.append(contentsOf: template.middle)
    bytes.append(contentsOf: String(number).utf8)
    bytes.append(contentsOf: template.end)
  }

  /// Begins the records of an event, of which the last one has an id. ``endEvent(at:)`` must follow them.
  ///
  /// - Parameters:
  ///   - idPrefix: the line of the id, up to its last part.
  ///   - number: the last part of the id; nil for `end`.
  mutating func beginEvent(_ idPrefix: [UInt8], number: Int?) -> EventStart {
    let offset = bytes.count
    bytes.append(contentsOf: idPrefix)
    bytes.append(contentsOf: (number.map { String($0) } ?? "end").utf8)
    bytes.append(0x0A)
    return EventStart(offset: offset, idBytes: bytes.count - offset)
  }

  /// Ends the records of an event.
  ///
  /// - Returns: whether there are any, so that the id has been appended.
  @discardableResult
  mutating func endEvent(at start: EventStart) -> Bool {
    let firstRecord = start.offset + start.idBytes
    if bytes.count == firstRecord {
      bytes.removeLast(start.idBytes)
      return false
    }
    // A client that receives the id must have all records of the event, so the last one has it. There is rarely more
    // than one.
    var lastRecord = bytes.count - 2
    while lastRecord > firstRecord, bytes[lastRecord - 1] != 0x0A || bytes[lastRecord - 2] != 0x0A { lastRecord -= 1 }
    if lastRecord > firstRecord {
      let id = Array(bytes[start.offset..<firstRecord])
      bytes.insert(contentsOf: id, at: lastRecord)
      bytes.removeSubrange(start.offset..<firstRecord)
    }
    return true
  }

  /// The place at which the id of an event was appended.
  struct EventStart {
    fileprivate let offset: Int
    fileprivate let idBytes: Int
  }

  /// Appends the record `[DONE]`, which terminates some formats.
  public mutating func appendDone() { bytes.append(contentsOf: "data: [DONE]\n\n".utf8) }

  /// Appends a comment, which keeps the connection alive and is ignored by clients.
  public mutating func appendHeartbeat() { bytes.append(contentsOf: EventStreamEncoder.heartbeat) }
}

/// A record in which all but one string is constant, framed in advance. Create it once per dialect or per stream.
public struct RecordTemplate: Sendable {
  fileprivate let start: [UInt8]
  fileprivate let middle: [UInt8]
  fileprivate let end: [UInt8]

  /// - Parameters:
  ///   - event: the record's type; nil means `message`.
  ///   - before: the JSON before the string, such as `{"text":`. Must not contain line breaks.
  ///   - after: the JSON after the string, such as `}`.
  public init(event: StaticString? = nil, _ before: String, _ after: String) {
    self.init(event: event, before, numberAfter: "", after)
  }

  /// - Parameter numberAfter: the JSON between the string and a number, such as `,"seq":`.
  init(event: StaticString? = nil, _ before: String, numberAfter middle: String, _ after: String) {
    var start: [UInt8] = []
    EventStreamEncoder.beginLine(event: event, into: &start)
    start += before.utf8
    var end = Array(after.utf8)
    EventStreamEncoder.endLine(&end)
    self.start = start
    self.middle = Array(middle.utf8)
    self.end = end
  }
}
