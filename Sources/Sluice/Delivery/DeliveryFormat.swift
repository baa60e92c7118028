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
}
