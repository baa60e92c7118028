import EventLoop
import FastCGI
import JSON

/// How a response is written.
enum DeliveryFormat {
  /// Makes the body of a JSON response of the result and all of the text.
  typealias JSONBody = @Sendable (GenerationResult, String) -> JSON

  /// Server-Sent Events.
  ///
  /// - Parameter sendsEventID: whether the stream's id is sent as an event id. An EventSource that reconnects sends it back.
  case eventStream(any Dialect, sendsEventID: Bool)
  /// One JSON response.
  case json(JSONBody)

  /// Makes the delivery of one response.
  ///
  /// - Parameters:
  ///   - id: the stream's.
  ///   - request: without its body; error responses depend on it.
  ///   - heartbeat: the interval; 0 sends none.
  ///   - pool: where large terminal records and responses are encoded.
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
