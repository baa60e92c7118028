/// Why there is no answer, or no whole one.
public struct GeneratorError: Error, Sendable, Equatable {
  public enum Code: Sendable, Equatable {
    /// The upstream refused, failed, could not be reached or did not speak the protocol.
    case failed
    /// It ended, or was cut off, after it had begun and before it had finished.
    case truncated
    /// It did not answer in time.
    case timedOut
    /// It asks for patience.
    case rateLimited
    /// The asking task was cancelled.
    case cancelled
    /// The administrator has to do something; the log says what.
    case misconfigured
  }

  public var code: Code
  /// What happened, for the client: no address, key or text of the upstream's is in it.
  public var message: String
  /// More, for the log.
  public var detail: String?
  /// Whether the same question may be answered if it is asked again later.
  public var isRetriable = true
  /// How long the upstream wants to be left alone (`Retry-After`).
  public var retryAfter: Duration?

  public init(_ code: Code, _ message: String, detail: String? = nil, retryAfter: Duration? = nil) {
    self.code = code
    self.message = message
    self.detail = detail
    self.retryAfter = retryAfter
  }

  static let cancelled = GeneratorError(.cancelled, "The answer was cancelled.")
}
