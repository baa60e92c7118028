import FastCGI
import Upstream

extension Failure {
  /// Creates the failure that a client receives for a generator's error.
  init(_ error: GeneratorError) {
    let code: Code =
      switch error.code.value {
      case .failed: .upstreamError
      case .truncated: .upstreamTruncated
      case .timedOut: .upstreamTimeout
      case .rateLimited: .upstreamRateLimited
      case .overloaded: .overloaded
      // A cancelled stream terminates with the termination requested for it, not with this failure.
      case .cancelled, .misconfigured: .internalError
      }
    self.init(code, error.message, detail: error.detail, retryAfter: error.retryAfter)
    isRetriable = code.isRetriable && error.isRetriable
    cause = error.cause?.rawValue
  }
}

extension Failure {
  /// Creates the failure that a client receives for any error thrown by a handler. An error without a failure of its
  /// own becomes `internal`; only the log contains its description.
  init(cause error: any Error) {
    switch error {
    case let failure as Failure: self = failure
    case let error as GeneratorError: self.init(error)
    default: self.init(.internalError, "Internal server error.", detail: String(describing: error))
    }
  }
}

extension Failure {
  /// The end of a stream whose token was removed from the tokens file.
  static let revoked = Failure(.unauthorized, "The token was revoked.")
  /// The refusal of a request while the server is shutting down.
  static let draining = Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5))
}

extension Failure {
  /// Returns the failure for a configuration that the administrator must correct; only the log contains `detail`.
  static func incompleteConfiguration(_ detail: String) -> Failure {
    Failure(.internalError, "The server is misconfigured.", detail: detail)
  }
}
