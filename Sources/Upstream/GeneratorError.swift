/// Why there is no answer, or no whole one.
public struct GeneratorError: Error, Sendable, Equatable {
  /// What kind of failure it is. New ones may be added.
  public struct Code: Sendable, Hashable, CustomStringConvertible {
    package enum Value: Sendable { case failed, truncated, timedOut, rateLimited, cancelled, misconfigured }

    package let value: Value

    public var description: String { "\(value)" }

    /// The upstream refused, failed, could not be reached or did not speak the protocol: `upstream_error`.
    public static let failed = Code(value: .failed)
    /// It ended, or was cut off, after it had begun and before it was complete: `upstream_truncated`.
    public static let truncated = Code(value: .truncated)
    /// It did not respond in time: `upstream_timeout`.
    public static let timedOut = Code(value: .timedOut)
    /// It is rate limiting: `upstream_rate_limited`.
    public static let rateLimited = Code(value: .rateLimited)
    /// The generation was cancelled.
    public static let cancelled = Code(value: .cancelled)
    /// The administrator must act; the log says how: `internal`.
    public static let misconfigured = Code(value: .misconfigured)
  }

  /// What kind of failure it is.
  public var code: Code
  /// What happened, for the client: no address, key or text of the upstream's is in it.
  public var message: String
  /// More, for the log.
  public var detail: String?
  /// Whether the same question may be answered if it is asked again later.
  public var isRetriable = true
  /// How long the upstream wants to be left alone (`Retry-After`).
  public var retryAfter: Duration?

  /// - Parameters:
  ///   - message: for the person who uses the client; without addresses, keys or words of the upstream's.
  ///   - detail: for the log only.
  ///   - retryAfter: the delay that the upstream requested.
  public init(_ code: Code, _ message: String, detail: String? = nil, retryAfter: Duration? = nil) {
    self.code = code
    self.message = message
    self.detail = detail
    self.retryAfter = retryAfter
  }

  static let cancelled = GeneratorError(.cancelled, "The generation was cancelled.")
}
