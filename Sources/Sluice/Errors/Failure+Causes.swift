import FastCGI
import Upstream

extension Failure {
  /// What a generator's failure is called towards a client.
  init(_ error: GeneratorError) {
    let code: Code =
      switch error.code.value {
      case .failed: .upstreamError
      case .truncated: .upstreamTruncated
      case .timedOut: .upstreamTimeout
      case .rateLimited: .upstreamRateLimited
      // Only what cancels a stream knows why; it is asked first.
      case .cancelled, .misconfigured: .internalError
      }
    self.init(code, error.message, detail: error.detail, retryAfter: error.retryAfter)
    isRetriable = code.isRetriable && error.isRetriable
  }
}

extension Failure {
  /// What any error of a handler's is called towards a client. One that says nothing else is `internal`, and what it
  /// is goes into the log only.
  init(cause error: any Error) {
    switch error {
    case let failure as Failure: self = failure
    case let error as GeneratorError: self.init(error)
    default: self.init(.internalError, "Internal server error.", detail: String(describing: error))
    }
  }
}

extension Failure {
  /// The server takes no further requests.
  static let draining = Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5))
}

extension Failure {
  /// The admin has to do something; the log says what.
  static func incompleteConfiguration(_ detail: String) -> Failure {
    Failure(.internalError, "The server is misconfigured.", detail: detail)
  }
}
