/// An HTTP request of an ``HTTPClient``.
struct HTTPRequest: Sendable {
  /// The path below the client's base URL, such as `/models`.
  var path: String
  /// The path from the root of the server, which replaces the base URL's path and ``path``.
  var rootedPath: String?
  /// Complete header lines, `"Name: value"`.
  var headers: [String]
  /// The body of a POST. Nil makes the request a GET.
  var body: [UInt8]?

  /// The API key in ``headers``; nil if there is none.
  var bearerToken: Substring? {
    let start = "Authorization: Bearer "
    return headers.first { $0.hasPrefix(start) }?.dropFirst(start.count)
  }
}

/// A client of one HTTP server on one loop. It reuses connections.
protocol HTTPClient: AnyObject {
  /// Whether no exchange is running.
  var isIdle: Bool { get }

  /// Starts an exchange. The client retains it, and its delegate, until it ends.
  ///
  /// - Parameter delegate: called in later turns of the loop.
  /// - Returns: nil if memory is exhausted or the URL is not valid.
  func start(_ request: consuming HTTPRequest, delegate: any HTTPExchangeDelegate) -> (any HTTPExchange)?
}

/// One request and its response. Confined to its loop.
protocol HTTPExchange: AnyObject {
  /// Whether the connection is ready for the request, including its TLS handshake if it uses TLS.
  var isConnected: Bool { get }

  /// Whether the connection can carry other exchanges at the same time (HTTP/2).
  var isMultiplexed: Bool { get }

  /// Resumes a response that the delegate paused.
  func resume()

  /// Cancels the exchange at once: its connection is closed, or its HTTP/2 stream is reset. The delegate is not called
  /// again. Must not be called by a method of the delegate. Has no effect on an exchange that has ended.
  func cancel()
}

/// The receiver of a response. All methods are called on the loop.
protocol HTTPExchangeDelegate: AnyObject {
  /// Called with the complete head of the final response. Returning false terminates the exchange before the body is
  /// read.
  func didReceiveHead(_ head: HTTPResponseHead) -> Bool

  /// Called with a part of the body, which is valid only during the call. Returning false pauses the response: after
  /// the parts that have been read already, which are limited, no more is read until ``HTTPExchange/resume()``.
  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool

  /// Called once, as the last method.
  ///
  /// - Parameter failure: the reason why the response is not complete, for the log. Nil if it is complete.
  func didComplete(_ failure: String?)
}
