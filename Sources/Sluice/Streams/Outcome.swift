/// The outcome of a stream, counted and logged exactly once per stream.
enum Outcome: String, Sendable, CaseIterable {
  /// The response was complete and, where required, stored.
  case completed
  /// The user stopped the stream.
  case stopped
  /// The client disconnected, or read nothing for too long.
  case disconnected
  case upstreamError = "upstream_error"
  case upstreamTruncated = "upstream_truncated"
  case timeout
  case parseError = "parse_error"
  case storeFailed = "store_failed"
  case shutdown
  /// The request was refused, or the server itself failed.
  case failed

  /// Creates the outcome of a stream that terminated with an error record, or with an error response in its place.
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
