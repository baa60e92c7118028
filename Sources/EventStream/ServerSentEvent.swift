/// One event of a Server-Sent Events stream (WHATWG HTML, 9.2), as a parser dispatches it.
package struct ServerSentEvent: Sendable, Equatable {
  /// The type of the event; `"message"` if the stream does not name one.
  package var type: String
  package var data: String
  /// The last event id in effect; empty if the stream has not set one.
  package var lastEventID: String

  package init(type: String = "message", data: String, lastEventID: String = "") {
    self.type = type
    self.data = data
    self.lastEventID = lastEventID
  }
}
