import EventLoop
import FastCGI
import JSON

/// The format of a response.
enum DeliveryFormat {
  /// A function that creates the body of a JSON response from the result and the complete text.
  typealias JSONBody = @Sendable (GenerationResult, String) -> JSON

  /// Server-Sent Events.
  ///
  /// - Parameter sendsEventID: whether the stream's id is sent as an event id, which an EventSource returns when it
  ///   reconnects.
  case eventStream(any Dialect, sendsEventID: Bool)
  /// One JSON response.
  case json(JSONBody)

  /// Creates the delivery of one response.
  ///
  /// - Parameters:
  ///   - id: the stream's id.
  ///   - request: the request without its body; error responses depend on it.
  ///   - heartbeat: the heartbeat interval; 0 disables heartbeats.
  ///   - pool: the threads that encode large terminal records and responses.
  func delivery(
    of id: String, to request: Request, heartbeat: Duration, on reactor: Reactor, pool: BlockingPool,
    _ writer: consuming ResponseWriter
  ) -> any Delivery {
    switch self {
    case .eventStream(let dialect, let sendsEventID):
      EventStreamDelivery(
        id, dialect, sendsEventID: sendsEventID, heartbeat: heartbeat, request, reactor, pool, writer)
    case .json(let body): JSONDelivery(body, request, reactor, pool, writer)
    }
  }
}
