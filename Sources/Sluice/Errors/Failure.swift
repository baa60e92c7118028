import EventLoop
import JSON

/// Why a request is refused or a stream failed: one vocabulary for HTTP responses and for records in a stream.
///
/// A handler throws it to choose what the client is told: before the first text of a stream as a response with the
/// code's status, later as the stream's error record.
public struct Failure: Error, Sendable, Equatable {
  /// What went wrong: `code` in error objects. New ones may be added.
  public struct Code: Sendable, Hashable, CustomStringConvertible {
    /// The table of codes: their names on the wire.
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

    /// `bad_request`, 400: the request is not valid. The message says what would be.
    public static let badRequest = Code(.badRequest)
    /// `unauthorized`, 401: no user could be told from the request.
    public static let unauthorized = Code(.unauthorized)
    /// `forbidden`, 403: the user is known, or could be, and must not do this.
    public static let forbidden = Code(.forbidden)
    /// `not_found`, 404: no such path, or no such thing of this user's.
    public static let notFound = Code(.notFound)
    /// `streaming_disabled`, 404: a feature is off. ``Failure/alternate`` names the path that is not.
    public static let streamingDisabled = Code(.streamingDisabled)
    /// `method_not_allowed`, 405: the path has other methods: ``Failure/allowedMethods``.
    public static let methodNotAllowed = Code(.methodNotAllowed)
    /// `payload_too_large`, 413: the body, or a part of it, exceeds its limit.
    public static let payloadTooLarge = Code(.payloadTooLarge)
    /// `unsupported_media_type`, 415: the body is not declared as JSON.
    public static let unsupportedMediaType = Code(.unsupportedMediaType)
    /// `conflict`, 409: a request with the same key is in progress: ``Failure/streamID``.
    public static let conflict = Code(.conflict)
    /// `too_many_streams`, 429: the user's limit of concurrent streams or requests is reached.
    public static let tooManyStreams = Code(.tooManyStreams)
    /// `rate_limited`, 429: the user's limit of messages per hour is reached. ``Failure/retryAfter`` is set.
    public static let rateLimited = Code(.rateLimited)
    /// `upstream_error`, 502: the model server refused, failed or could not be reached, or its response is too long.
    public static let upstreamError = Code(.upstreamError)
    /// `upstream_truncated`, 502: its response ended before it was complete.
    public static let upstreamTruncated = Code(.upstreamTruncated)
    /// `upstream_timeout`, 504: it did not respond in time.
    public static let upstreamTimeout = Code(.upstreamTimeout)
    /// `upstream_rate_limited`, 429: it is rate limiting requests.
    public static let upstreamRateLimited = Code(.upstreamRateLimited)
    /// `parse_error`, 422: a report is not the JSON object that it must be.
    public static let parseError = Code(.parseError)
    /// `store_failed`, 500: something complete could not be stored.
    public static let storeFailed = Code(.storeFailed)
    /// `overloaded`, 503: the server has no room for another stream.
    public static let overloaded = Code(.overloaded)
    /// `shutting_down`, 503: the server is stopping.
    public static let shuttingDown = Code(.shuttingDown)
    /// `internal`, 500: the server failed. ``Failure/detail`` goes into the log.
    public static let internalError = Code(.internalError)

    static let all = Value.allCases.map(Code.init)

    /// The name on the wire: `bad_request`.
    public var name: String { value.rawValue }
    public var description: String { name }

    /// The status of a response with it.
    public var status: Int { row.status }
    /// Whether the same request may succeed later, unless ``Failure/isRetriable`` is set otherwise.
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

  /// What went wrong.
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
  public internal(set) var allowedMethods: [String] = []
  /// The path of the answer that is not streamed (`Link`), with ``Code/streamingDisabled``.
  public internal(set) var alternate: String?
  /// The stream of the request in progress (`Sluice-Stream-Id`), with ``Code/conflict``.
  public internal(set) var streamID: String?

  /// - Parameters:
  ///   - code: what went wrong.
  ///   - message: for the person who uses the client; without secrets.
  ///   - detail: for the log only.
  ///   - retryAfter: the delay before another attempt; rounded up to seconds in `Retry-After`.
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
    ["code": .string(code.name), "message": .string(message), "retriable": .bool(isRetriable)]
  }

  /// The same as OpenAI's API says it.
  var openAIJSON: JSON {
    [
      "message": .string(message), "type": .string(openAIType), "param": .null, "code": .string(code.name),
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
