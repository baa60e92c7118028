import EventStream
import JSON

/// The records of a stream, encoded one behind the other: dialects decide what is in them, this how they are framed
/// (WHATWG HTML, 9.2.5).
public struct Records {
  var bytes: [UInt8]

  init(_ bytes: consuming [UInt8]) { self.bytes = bytes }

  /// No records: for tests of dialects. Sluice makes those that are sent.
  public init() { bytes = [] }

  /// What is sent, as text.
  public var text: String { String(decoding: bytes, as: UTF8.self) }

  /// Appends a record with JSON data.
  ///
  /// - Parameters:
  ///   - event: its type; nil means `message`, as for the handler `onmessage` of an EventSource.
  ///   - data: its data.
  public mutating func append(event: StaticString? = nil, _ data: JSON) {
    EventStreamEncoder.beginLine(event: event, into: &bytes)
    bytes.append(json: data)
    EventStreamEncoder.endLine(&bytes)
  }

  /// Appends a record of which only one string changes: the way of every delta.
  public mutating func append(_ template: borrowing RecordTemplate, _ text: String) {
    bytes.append(contentsOf: template.start)
    bytes.append(jsonString: text)
    bytes.append(contentsOf: template.end)
  }

  /// Appends a record whose data continues behind the string: `number`, then the template's end.
  mutating func append(_ template: borrowing RecordTemplate, _ text: String, number: Int) {
    bytes.append(contentsOf: template.start)
    bytes.append(jsonString: text)
    bytes.append(contentsOf: template.middle)
    bytes.append(contentsOf: String(number).utf8)
    bytes.append(contentsOf: template.end)
  }

  /// Appends an event of nothing but an id, which is shown to nobody: an EventSource that reconnects sends it back.
  mutating func append(id: String) { bytes.append(contentsOf: "id: \(id)\n\n".utf8) }

  /// Appends the record `[DONE]`, with which some formats end.
  public mutating func appendDone() { bytes.append(contentsOf: "data: [DONE]\n\n".utf8) }

  /// Appends a comment, which keeps the connection alive and which no client shows.
  public mutating func appendHeartbeat() { bytes.append(contentsOf: EventStreamEncoder.heartbeat) }
}

/// A record of which all but one string is constant, framed once. Make it once for a dialect, or for a stream.
public struct RecordTemplate: Sendable {
  fileprivate let start: [UInt8]
  fileprivate let middle: [UInt8]
  fileprivate let end: [UInt8]

  /// - Parameters:
  ///   - event: the record's type; nil means `message`.
  ///   - before: the JSON before the string: `{"text":`. Without line ends.
  ///   - after: the JSON behind it: `}`.
  public init(event: StaticString? = nil, _ before: String, _ after: String) {
    self.init(event: event, before, numberAfter: "", after)
  }

  /// - Parameter numberAfter: the JSON between the string and a number: `,"seq":`.
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
