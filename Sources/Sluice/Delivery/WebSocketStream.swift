import Bytes
import EventLoop
import JSON
import WebSocket

/// One stream on a WebSocket connection, from the client's message to its terminal record or refusal.
///
/// Belongs to its loop.
final class WebSocketStream {
  let connection: WebSocketConnection
  private let id: String
  /// The start of each message: a JSON object with the client's id of the stream.
  private let prefix: [UInt8]
  /// The descriptor reserved for the connection to the model; nil if there is none.
  let unit: DescriptorUnit?
  /// The id of the stream, once its response has started or is about to.
  var streamID: String?
  /// Whether the client has stopped the stream.
  var isStopRequested = false
  /// The delivery of the response until its end; it observes the connection.
  var delivery: WebSocketDelivery? { didSet { onDecision.take()?() } }
  private var onDecision: (() -> Void)?
  private var onEnd: ((Failure?) -> Void)?

  /// - Parameters:
  ///   - id: the client's id of the stream.
  ///   - onDecision: called once, when the stream is accepted or refused.
  ///   - onEnd: called once, with the reason of a refusal.
  init(
    _ id: String, on connection: WebSocketConnection, unit: DescriptorUnit?, onDecision: @escaping () -> Void,
    onEnd: @escaping (Failure?) -> Void
  ) {
    self.onDecision = onDecision
    self.id = id
    self.connection = connection
    self.unit = unit
    self.onEnd = onEnd
    prefix = Array(#"{"id":"\#(id)""#.utf8)
  }

  /// Refuses the stream before it is open.
  func refuse(_ failure: Failure) {
    Self.sendRefusal(failure, id: id, on: connection)
    end(failure)
  }

  /// Sends the refusal of a message.
  ///
  /// - Parameter id: the client's id of the stream that the message is about; nil if it has none.
  static func sendRefusal(_ failure: Failure, id: String?, on connection: WebSocketConnection) {
    guard !connection.isClosed else { return }
    var members: JSON.Members = [:]
    members["id"] = id.map(JSON.string)
    members["event"] = "error"
    members["status"] = .integer(failure.code.status)
    members["retryAfter"] = failure.retryAfterSeconds.map(JSON.integer)
    members["data"] = failure.json
    send(JSON.object(members).encoded, on: connection)
  }

  private static func send(_ message: [UInt8], on connection: WebSocketConnection) {
    var output = connection.takeOutput()
    Frame.appendHeader(.text, payloadBytes: message.count, to: &output)
    output += message
    connection.putOutput(output)
  }

  /// Ends the stream. The client can use its id again.
  func end(_ failure: Failure? = nil) {
    delivery = nil
    onEnd.take()?(failure)
  }

  // MARK: Messages

  /// Sends that the stream is open.
  func appendOpen(_ streamID: String) {
    guard !connection.isClosed else { return }
    Self.send(prefix + #","event":"open","stream":"\#(streamID)"}"#.utf8, on: connection)
  }

  /// Sends each of a dialect's records as a message of its own.
  ///
  /// - Returns: the number of bytes appended to the output.
  func append(_ records: [UInt8]) -> Int {
    guard !connection.isClosed else { return 0 }
    var output = connection.takeOutput()
    let before = output.count
    append(records.span, to: &output)
    let count = output.count - before
    connection.putOutput(output)
    return count
  }

  private func append(_ records: borrowing Span<UInt8>, to output: inout [UInt8]) {
    var record = EventStreamRecord()
    while record.readNext(in: records) {
      if record.data.isEmpty { continue }
      let isText = record.isDone(in: records)
      let eventBytes = record.event.isEmpty ? 0 : Self.event.count + record.event.count + 1
      let dataBytes = Self.data.count + record.data.count + (isText ? 2 : 0)
      Frame.appendHeader(.text, payloadBytes: prefix.count + eventBytes + dataBytes + 1, to: &output)
      output.append(contentsOf: prefix)
      if !record.event.isEmpty {
        output.append(contentsOf: Self.event)
        output.append(records.extracting(record.event))
        output.append(UInt8(ascii: "\""))
      }
      output.append(contentsOf: Self.data)
      if isText { output.append(UInt8(ascii: "\"")) }
      output.append(records.extracting(record.data))
      if isText { output.append(UInt8(ascii: "\"")) }
      output.append(UInt8(ascii: "}"))
    }
  }

  private static let event = Array(#","event":""#.utf8)
  private static let data = Array(#","data":"#.utf8)
}

/// The places of an event and of a line of data in a dialect's records; either can be missing.
private struct EventStreamRecord {
  private(set) var event = 0..<0
  private(set) var data = 0..<0
  private var end = 0

  /// Advances to the next record. Returns false if there is none.
  mutating func readNext(in records: borrowing Span<UInt8>) -> Bool {
    (event, data) = (0..<0, 0..<0)
    while end < records.count {
      let start = end
      while end < records.count, records[end] != 0x0A { end += 1 }
      let line = start..<end
      end += 1
      switch line.count > 6 ? records[start] : 0 {
      // "data: " and "event: ", as Records writes them.
      case UInt8(ascii: "d"): data = line.lowerBound + 6..<line.upperBound
      case UInt8(ascii: "e"): event = line.lowerBound + 7..<line.upperBound
      // The empty line after a record, or a comment.
      default: return true
      }
    }
    return false
  }

  /// Returns whether the data is `[DONE]`. All other data is JSON.
  func isDone(in records: borrowing Span<UInt8>) -> Bool {
    guard data.count == 6, records[data.lowerBound] == UInt8(ascii: "[") else { return false }
    return String(decodingUTF8: records.extracting(data)) == "[DONE]"
  }
}
