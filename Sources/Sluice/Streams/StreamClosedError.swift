/// The stream is closed: its client disconnected, it was stopped, or it ran out of time. A handler that catches it
/// should just return.
public struct StreamClosedError: Error, Sendable {
  /// For a handler's own use; Sluice throws it.
  public init() {}
}
