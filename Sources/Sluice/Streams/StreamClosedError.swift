/// The error that a handler receives when its stream has terminated, because the client disconnected, the stream was
/// stopped or timed out, or the server is shutting down. The handler propagates it, or releases its resources and
/// returns; the result is incomplete in both cases.
public struct StreamClosedError: Error, Sendable {
  /// Creates an error for a handler's own use; otherwise Sluice creates it.
  public init() {}
}
