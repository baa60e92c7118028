/// One event of a Server-Sent Events stream (WHATWG HTML, 9.2), as a parser dispatches it.
package struct ServerSentEvent: Sendable, Equatable {
  /// The event's type: `"message"` when the stream names none.
  package var type: String
  package var data: String
  /// The last event id in force, empty when the stream never gave one.
  package var lastEventID: String

  package init(type: String = "message", data: String, lastEventID: String = "") {
    self.type = type
    self.data = data
    self.lastEventID = lastEventID
  }
}
