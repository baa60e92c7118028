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
  var delivery: WebSocketDelivery?
  private var onEnd: ((Failure?) -> Void)?

  /// - Parameters:
  ///   - id: the client's id of the stream.
  ///   - onEnd: called once, with the reason of a refusal.
  init(
    _ id: String, on connection: WebSocketConnection, unit: DescriptorUnit?, onEnd: @escaping (Failure?) -> Void
  ) {
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

  /// Sends each of a dialect's records as a message of its own, except heartbeats.
  ///
  /// - Returns: the number of bytes appended to the output.
  @discardableResult
  func append(_ records: [UInt8]) -> Int {
    guard !connection.isClosed else { return 0 }
    var output = connection.takeOutput()
    let before = output.count
    var rest = records[...]
    while let record = EventStreamRecord(parsing: &rest) {
      guard !record.data.isEmpty, !record.event.elementsEqual("heartbeat".utf8) else { continue }
      let isJSON = record.data.first != UInt8(ascii: "[")
      let eventBytes = record.event.isEmpty ? 0 : record.event.count + Self.event.count + 1
      let dataBytes = record.data.count + (isJSON ? 0 : 2)
      Frame.appendHeader(
        .text, payloadBytes: prefix.count + eventBytes + Self.data.count + dataBytes + 1, to: &output)
      output += prefix
      if !record.event.isEmpty {
        output += Self.event
        output += record.event
        output.append(UInt8(ascii: "\""))
      }
      output += Self.data
      if !isJSON { output.append(UInt8(ascii: "\"")) }
      output += record.data
      if !isJSON { output.append(UInt8(ascii: "\"")) }
      output.append(UInt8(ascii: "}"))
    }
    let count = output.count - before
    connection.putOutput(output)
    return count
  }

  private static let event = Array(#","event":""#.utf8)
  private static let data = Array(#","data":"#.utf8)
}

/// One record as a dialect encodes it: an event and a line of data, of which either can be missing.
private struct EventStreamRecord {
  var event: ArraySlice<UInt8> = []
  var data: ArraySlice<UInt8> = []

  /// Removes the first record from `bytes`. Returns nil if there is none.
  init?(parsing bytes: inout ArraySlice<UInt8>) {
    guard !bytes.isEmpty else { return nil }
    while let end = bytes.firstIndex(of: 0x0A) {
      let line = bytes[..<end]
      bytes = bytes[(end + 1)...]
      if line.starts(with: "data: ".utf8) {
        data = line.dropFirst(6)
      } else if line.starts(with: "event: ".utf8) {
        event = line.dropFirst(7)
      } else {
        // The empty line after a record, or a comment.
        return
      }
    }
    bytes = []
  }
}
