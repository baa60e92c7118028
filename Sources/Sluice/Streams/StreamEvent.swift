import Upstream

/// An event of a stream, independent of its wire format.
public enum StreamEvent: Sendable {
  /// The stream is open. Always the first event, and sent once.
  case started
  /// A delta of the text, never empty.
  case delta(String)
  /// Reasoning, a refusal, a call of a tool or a source. Most models send none unless the request asks for it.
  case part(OutputPart)
  /// Nothing was sent for the heartbeat interval.
  case heartbeat
  /// The response is complete. Exactly one of this, ``failed(_:)`` and ``cancelled(reason:)`` is the last event.
  case completed(GenerationResult)
  /// The response failed.
  case failed(Failure)
  /// The response was stopped: `reason` is `stopped`.
  case cancelled(reason: String)
}

/// The properties of a stream that its dialect receives before the first event.
public struct StreamMetadata: Sendable {
  /// The id of the message in the store, if it is stored: the stream's id, unless a stored response is replayed.
  public var messageID: String
  /// The user's message; empty for an embedder's routes.
  public var message = ""
  /// The requested model; `default` if it is not known.
  public var model = "default"
  /// Whether the client requested token usage.
  public var wantsUsage = false
  /// The time at which the stream began, in seconds since 1970. The same for all readers of the stream.
  public var createdAt = Timestamp.seconds

  /// Creates metadata for tests of dialects; otherwise Sluice creates it.
  public init(messageID: String) { self.messageID = messageID }
}
