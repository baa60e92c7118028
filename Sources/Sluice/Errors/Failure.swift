import EventLoop
import JSON
import Upstream

/// The reason why a request is refused or a stream fails: one vocabulary for HTTP responses and stream records.
///
/// A handler throws a failure to choose what the client receives: a response with the code's status while the stream
/// has not started, or the stream's error record after that.
public struct Failure: Error, Sendable, Equatable {
  /// The kind of a failure: `code` in error objects. Further codes can be added.
  public struct Code: Sendable, Hashable, CustomStringConvertible {
    /// The table of codes, with their names on the wire.
    enum Value: String, CaseIterable {
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
    }

    private let value: Value

    private init(_ value: Value) { self.value = value }

    /// `bad_request`, 400: the request is not valid. The message states what would be valid.
    public static let badRequest = Code(.badRequest)
    /// `unauthorized`, 401: the request does not authenticate a user.
    public static let unauthorized = Code(.unauthorized)
    /// `forbidden`, 403: the request is not allowed, even with valid authentication.
    public static let forbidden = Code(.forbidden)
    /// `not_found`, 404: the path does not exist, or the user has no such resource.
    public static let notFound = Code(.notFound)
    /// `streaming_disabled`, 404: the feature is disabled. ``Failure/alternate`` is the path of the non-streaming
    /// endpoint, if there is one.
    public static let streamingDisabled = Code(.streamingDisabled)
    /// `method_not_allowed`, 405: the path supports only ``Failure/allowedMethods``.
    public static let methodNotAllowed = Code(.methodNotAllowed)
    /// `payload_too_large`, 413: the body, or a field of it, exceeds its limit.
    public static let payloadTooLarge = Code(.payloadTooLarge)
    /// `unsupported_media_type`, 415: the body is not declared as JSON.
    public static let unsupportedMediaType = Code(.unsupportedMediaType)
    /// `conflict`, 409: a request with the same Idempotency-Key is in progress (``Failure/streamID``), or the session
    /// of its stored response has been deleted.
    public static let conflict = Code(.conflict)
    /// `too_many_streams`, 429: the user's limit of concurrent streams or requests is reached.
    public static let tooManyStreams = Code(.tooManyStreams)
    /// `rate_limited`, 429: the user's limit of messages per hour is reached. ``Failure/retryAfter`` is set.
    public static let rateLimited = Code(.rateLimited)
    /// `upstream_error`, 502: the model server refused the request, failed, or could not be reached, or its response is
    /// too long.
    public static let upstreamError = Code(.upstreamError)
    /// `upstream_truncated`, 502: the model server's response ended before it was complete.
    public static let upstreamTruncated = Code(.upstreamTruncated)
    /// `upstream_timeout`, 504: the model server did not respond, or complete its response, in time.
    public static let upstreamTimeout = Code(.upstreamTimeout)
    /// `upstream_rate_limited`, 429: the model server is rate limiting requests.
    public static let upstreamRateLimited = Code(.upstreamRateLimited)
    /// `parse_error`, 422: the model's output for a report does not contain a valid JSON object.
    public static let parseError = Code(.parseError)
    /// `store_failed`, 500: a write to the store failed.
    public static let storeFailed = Code(.storeFailed)
    /// `overloaded`, 503: the server has no capacity for another stream.
    public static let overloaded = Code(.overloaded)
    /// `shutting_down`, 503: the server is shutting down.
    public static let shuttingDown = Code(.shuttingDown)
    /// `internal`, 500: the server failed. The log contains ``Failure/detail``.
    public static let internalError = Code(.internalError)

    static let all = Value.allCases.map(Code.init)

    /// The name on the wire, such as `bad_request`.
    public var name: String { value.rawValue }
    public var description: String { name }

    /// The HTTP status of a response with this code.
    public var status: Int { row.status }
    /// Whether the same request can succeed later. ``Failure/isRetriable`` can override it.
    public var isRetriable: Bool { row.isRetriable }

    private var row: (status: Int, isRetriable: Bool) {
      switch value {
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
  }

  /// The kind of the failure.
  public var code: Code
  /// The message for the client's user: what is wrong and what would be right. It contains no secrets.
  public var message: String
  /// Whether the same request can succeed if it is sent again later. The default is the code's.
  public var isRetriable: Bool
  /// Further information, for the log only.
  public var detail: String?
  /// The minimum delay before another attempt (`Retry-After`).
  public var retryAfter: Duration?
  /// A finer distinction than the code, for the log and the metrics: a few fixed words.
  var cause: String?
  /// The model server's refusal, if the client receives that instead.
  var refusal: GeneratorError.Refusal?
  /// The methods that the path supports (`Allow`), with ``Code/methodNotAllowed``.
  public internal(set) var allowedMethods: [String] = []
  /// The path of the non-streaming endpoint (`Link`), with ``Code/streamingDisabled``.
  public internal(set) var alternate: String?
  /// The id of the stream in progress (`Sluice-Stream-Id`), with ``Code/conflict``.
  public internal(set) var streamID: String?

  /// Creates a failure.
  ///
  /// - Parameters:
  ///   - code: the kind of the failure.
  ///   - message: the message for the client's user; must not contain secrets.
  ///   - detail: further information, for the log only.
  ///   - retryAfter: the minimum delay before another attempt; rounded up to seconds in `Retry-After`.
  public init(_ code: Code, _ message: String, detail: String? = nil, retryAfter: Duration? = nil) {
    self.code = code
    self.isRetriable = code.isRetriable
    self.message = message
    self.detail = detail
    self.retryAfter = retryAfter
  }

  /// The error object of HTTP responses and most dialects: `{"code","message","retriable"}`.
  public var json: JSON { .object(members) }

  var members: JSON.Members {
    ["code": .string(code.name), "message": .string(message), "retriable": .bool(isRetriable)]
  }

  /// The error object in the format of OpenAI's API.
  var openAIJSON: JSON {
    [
      "message": .string(refusal?.message ?? message), "type": .string(refusal?.type ?? openAIType),
      "param": refusal?.param.map(JSON.string) ?? .null, "code": refusal?.code ?? .string(code.name),
      "retriable": .bool(isRetriable),
    ]
  }

  private var openAIType: String {
    switch refusal?.status ?? code.status {
    case 401: "authentication_error"
    case 403: "permission_error"
    case 429: "rate_limit_error"
    case 400..<500: "invalid_request_error"
    default: "server_error"
    }
  }
}
