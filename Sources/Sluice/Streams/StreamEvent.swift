/// What can happen in a stream: one vocabulary for all wire formats.
public enum StreamEvent: Sendable {
  /// The first, once: the stream is open.
  case started
  /// A part of the text, never empty.
  case delta(String)
  /// Nothing was sent for the heartbeat interval.
  case heartbeat
  /// The response is complete. Exactly one of this, ``failed(_:)`` and ``cancelled(reason:)`` is the last event.
  case completed(GenerationResult)
  /// The response failed.
  case failed(Failure)
  /// The response was stopped: `reason` is `stopped`.
  case cancelled(reason: String)
}

/// What a dialect can know of its stream before the first event.
public struct StreamMetadata: Sendable {
  /// The id that the message has, or would have, in the store: the stream's, unless a stored response is replayed.
  public var messageID: String
  /// The user's message; empty on routes of an embedder.
  public var message = ""
  /// The model that was requested, where the built-in endpoints know it.
  public var model = "default"
  /// Whether the client requested a report of the usage of tokens.
  public var wantsUsage = false

  /// For tests of dialects; Sluice makes it.
  public init(messageID: String) { self.messageID = messageID }
}
