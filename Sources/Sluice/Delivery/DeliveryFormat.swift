import EventLoop
import FastCGI
import JSON

/// The records of an event stream that have an event id: `STREAM.N` after N deltas, or `STREAM.end`.
enum EventIDs {
  case none
  /// The first record, a delta or the terminal record: an EventSource that reconnects can then be refused.
  case first
  /// Every delta and the terminal record: the stream can be continued after each of them.
  case all

  /// Returns ``all``, or ``none`` if the dialect allows no ids.
  static func all(of dialect: DialectKind) -> EventIDs { dialect.type.allowsEventID ? .all : .none }
}

/// The format of a response.
enum DeliveryFormat {
  /// A function that creates the body of a JSON response from the result and the complete text.
  typealias JSONBody = @Sendable (GenerationResult, String) -> JSON

  /// Server-Sent Events.
  ///
  /// - Parameter ids: the records that have an event id, which an EventSource returns when it reconnects.
  case eventStream(any Dialect, ids: EventIDs)
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
    case .eventStream(let dialect, let ids):
      EventStreamDelivery(id, dialect, ids: ids, heartbeat: heartbeat, request, reactor, pool, writer)
    case .json(let body): JSONDelivery(body, request, reactor, pool, writer)
    }
  }
}
