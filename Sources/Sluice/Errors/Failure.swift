import EventLoop
import JSON

/// Why a request is refused or a stream failed: one vocabulary for HTTP answers and for records in a stream.
public struct Failure: Error, Sendable, Equatable {
  public enum Code: String, Sendable, CaseIterable {
    case badRequest = "bad_request"
    case unauthorized
    case forbidden
    case notFound = "not_found"
    case streamingDisabled = "streaming_disabled"
    case methodNotAllowed = "method_not_allowed"
    case payloadTooLarge = "payload_too_large"
    case unsupportedMediaType = "unsupported_media_type"
    case conflict
    case tooManyStreams = "too_many_streams"
    case rateLimited = "rate_limited"
    case upstreamError = "upstream_error"
    case upstreamTruncated = "upstream_truncated"
    case upstreamTimeout = "upstream_timeout"
    case upstreamRateLimited = "upstream_rate_limited"
    case parseError = "parse_error"
    case storeFailed = "store_failed"
    case overloaded
    case shuttingDown = "shutting_down"
    case internalError = "internal"

    /// The HTTP status, and whether the same request may succeed if it is sent again later.
    private var row: (status: Int, isRetriable: Bool) {
      switch self {
      case .badRequest: (400, false)
      case .unauthorized: (401, false)
      case .forbidden: (403, false)
      case .notFound: (404, false)
      case .streamingDisabled: (404, false)
      case .methodNotAllowed: (405, false)
      case .payloadTooLarge: (413, false)
      case .unsupportedMediaType: (415, false)
      case .conflict: (409, true)
      case .tooManyStreams: (429, true)
      case .rateLimited: (429, true)
      case .upstreamError: (502, true)
      case .upstreamTruncated: (502, true)
      case .upstreamTimeout: (504, true)
      case .upstreamRateLimited: (429, true)
      case .parseError: (422, true)
      case .storeFailed: (500, true)
      case .overloaded: (503, true)
      case .shuttingDown: (503, true)
      case .internalError: (500, false)
      }
    }

    public var status: Int { row.status }
    public var isRetriable: Bool { row.isRetriable }
  }

  public var code: Code
  /// For the person who uses the client: what is wrong and what would be right. No secret is in it.
  public var message: String
  /// Whether the same request may succeed if it is sent again later: as its code has it, unless set.
  public var isRetriable: Bool
  /// More, for the log only.
  public var detail: String?
  /// When to try again, at the earliest (`Retry-After`).
  public var retryAfter: Duration?
  /// The methods that the path has (`Allow`), with ``Code/methodNotAllowed``.
  public var allowedMethods: [String] = []
  /// The path of the answer that is not streamed (`Link`), with ``Code/streamingDisabled``.
  public var alternate: String?
  /// The stream that is at it already (`Sluice-Stream-Id`), with ``Code/conflict``.
  public var streamID: String?

  public init(_ code: Code, _ message: String, detail: String? = nil, retryAfter: Duration? = nil) {
    self.code = code
    self.isRetriable = code.isRetriable
    self.message = message
    self.detail = detail
    self.retryAfter = retryAfter
  }

  /// `{"code","message","retriable"}`, as every error object of every dialect holds.
  public var json: JSON { .object(members) }

  var members: JSON.Members {
    ["code": .string(code.rawValue), "message": .string(message), "retriable": .bool(isRetriable)]
  }

  /// The same as OpenAI's API says it.
  var openAIJSON: JSON {
    [
      "message": .string(message), "type": .string(openAIType), "param": .null, "code": .string(code.rawValue),
      "retriable": .bool(isRetriable),
    ]
  }

  private var openAIType: String {
    switch code.status {
    case 401: "authentication_error"
    case 403: "permission_error"
    case 429: "rate_limit_error"
    case 400..<500: "invalid_request_error"
    default: "server_error"
    }
  }
}
