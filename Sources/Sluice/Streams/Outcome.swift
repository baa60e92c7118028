/// How a stream ended: counted and logged exactly once for each.
enum Outcome: String, Sendable, CaseIterable {
  /// The answer was complete, and stored where it is to be stored.
  case completed
  /// The user stopped it.
  case stopped
  /// The client went away, or took nothing for too long.
  case disconnected
  case upstreamError = "upstream_error"
  case upstreamTruncated = "upstream_truncated"
  case timeout
  case parseError = "parse_error"
  case storeFailed = "store_failed"
  case shutdown
  /// The request was refused, or the server itself failed.
  case failed

  /// The outcome of a stream that ended with an error record, or with a refusal in its place.
  init(_ code: Failure.Code) {
    switch code {
    case .upstreamError, .upstreamRateLimited: self = .upstreamError
    case .upstreamTruncated: self = .upstreamTruncated
    case .upstreamTimeout: self = .timeout
    case .parseError: self = .parseError
    case .storeFailed: self = .storeFailed
    case .shuttingDown: self = .shutdown
    default: self = .failed
    }
  }
}
