import JSON

/// The reason why generation failed.
public struct GeneratorError: Error, Sendable, Equatable {
  /// The kind of failure. New kinds may be added.
  public struct Code: Sendable, Hashable, CustomStringConvertible {
    package enum Value: Sendable { case failed, truncated, timedOut, rateLimited, overloaded, cancelled, misconfigured }

    package let value: Value

    public var description: String { "\(value)" }

    /// The upstream refused, failed, could not be reached or violated the protocol: `upstream_error`.
    public static let failed = Code(value: .failed)
    /// The upstream's response was truncated after it had started: `upstream_truncated`.
    public static let truncated = Code(value: .truncated)
    /// The upstream did not respond in time: `upstream_timeout`.
    public static let timedOut = Code(value: .timedOut)
    /// The upstream is rate limiting: `upstream_rate_limited`.
    public static let rateLimited = Code(value: .rateLimited)
    /// The generator has no capacity for another response: `overloaded`.
    public static let overloaded = Code(value: .overloaded)
    /// The generation was cancelled.
    public static let cancelled = Code(value: .cancelled)
    /// The server is misconfigured; the log contains the details: `internal`.
    public static let misconfigured = Code(value: .misconfigured)
  }

  /// The kind of failure.
  public var code: Code
  /// The message for the client. It contains no address, API key or text of the upstream.
  public var message: String
  /// Further details, for the log only.
  public var detail: String?
  /// The part that the administrator has to mend, for the log, the metrics and diagnosis; nil if it is not known.
  package var cause: Cause?

  package enum Cause: String, Sendable {
    case unreachable, unauthorized, model
    case notStreaming = "not_streaming"
    case connectTimeout = "connect_timeout"
  }

  /// The refusal in the upstream's own words, if it is the business of the request's author.
  package var refusal: Refusal?

  /// A refusal of an OpenAI-compatible API: its status, and the members of its error object.
  package struct Refusal: Sendable, Equatable {
    package let status: Int
    package let message: String?
    package let type: String?
    package let code: JSON?
    package let param: String?
  }

  /// Whether the same request can succeed later.
  public var isRetriable = true
  /// The delay that the upstream requested (`Retry-After`).
  public var retryAfter: Duration?

  /// - Parameters:
  ///   - message: the message for the client; must not contain addresses, API keys or text of the upstream.
  ///   - detail: further details, for the log only.
  ///   - retryAfter: the delay that the upstream requested.
  public init(_ code: Code, _ message: String, detail: String? = nil, retryAfter: Duration? = nil) {
    self.code = code
    self.message = message
    self.detail = detail
    self.retryAfter = retryAfter
  }

  static func unreachable(_ detail: String?) -> GeneratorError {
    var error = GeneratorError(.failed, "The model server could not be reached.", detail: detail)
    error.cause = .unreachable
    return error
  }

  static let cancelled = GeneratorError(.cancelled, "The generation was cancelled.")
  static let invalidURL = GeneratorError(.failed, "The model server's URL is not valid.")
}
