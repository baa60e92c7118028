/// The stream is closed: its client disconnected, it was stopped, or it ran out of time. A handler lets it
/// through, or releases what it holds and returns: the result is incomplete either way.
public struct StreamClosedError: Error, Sendable {
  /// For a handler's own use; Sluice throws it.
  public init() {}
}
