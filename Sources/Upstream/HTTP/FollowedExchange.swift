import EventLoop

/// An exchange whose response is what a client of an API expects: redirections to the same server are followed (RFC
/// 9110, 15.4.8 and 15.4.9), and the body is decoded. Confined to its loop.
///
/// The client retains this object until the exchange ends.
final class FollowedExchange: HTTPExchange, HTTPExchangeDelegate {
  private let client: any HTTPClient
  private let baseURL: String
  private let reactor: Reactor
  private var delegate: (any HTTPExchangeDelegate)?
  private var exchange: (any HTTPExchange)?
  /// The request, for a redirection; nil once there is a response.
  private var request: HTTPRequest?
  /// The request to which the response redirects.
  private var next: HTTPRequest?
  private var redirections = 0
  /// Decodes the body if it has a coding.
  private var decoder: BodyDecoder?

  private static let maximumRedirections = 3

  /// Starts an exchange.
  ///
  /// - Parameter baseURL: the base URL of the client. Its server is the only one to which a request is sent.
  /// - Returns: nil if memory is exhausted or the URL is not valid.
  static func start(
    _ request: consuming HTTPRequest, _ client: any HTTPClient, baseURL: String, delegate: any HTTPExchangeDelegate,
    on reactor: Reactor
  ) -> FollowedExchange? {
    let exchange = FollowedExchange(request, client, baseURL, delegate, reactor)
    exchange.exchange = exchange.request.flatMap { client.start($0, delegate: exchange) }
    return exchange.exchange == nil ? nil : exchange
  }

  private init(
    _ request: consuming HTTPRequest, _ client: any HTTPClient, _ baseURL: String,
    _ delegate: any HTTPExchangeDelegate, _ reactor: Reactor
  ) {
    self.request = request
    self.client = client
    self.baseURL = baseURL
    self.delegate = delegate
    self.reactor = reactor
  }

  var isConnected: Bool { exchange?.isConnected ?? false }
  var isMultiplexed: Bool { exchange?.isMultiplexed ?? false }

  func resume() {
    if let decoder { decoder.resume() } else { exchange?.resume() }
  }

  func cancel() {
    delegate = nil
    decoder.take()?.cancel()
    exchange.take()?.cancel()
  }

  func didReceiveHead(_ head: HTTPResponseHead) -> Bool {
    var request = request.take()
    if head.status == 307 || head.status == 308, redirections < Self.maximumRedirections,
      let location = head.location, let from = request, let path = path(of: location, from: from)
    {
      redirections += 1
      request?.rootedPath = path
      next = request
      return false
    }
    var head = head
    if head.coding == .deflated, let inflater = Inflater() {
      head.coding = .none
      let decoder = BodyDecoder(inflater, of: exchange, for: delegate, on: reactor)
      (self.decoder, delegate) = (decoder, decoder)
    }
    return delegate?.didReceiveHead(head) ?? false
  }

  /// Returns the path and the query of a location if it is on the same server, otherwise nil (RFC 3986, 5.2).
  private func path(of location: String, from request: HTTPRequest) -> String? {
    guard let base = URLParts(baseURL) else { return nil }
    var path = location.prefix { $0 != "#" }
    guard !path.isEmpty, path.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return nil }
    if path.hasPrefix("//") || path.contains("://") && !path.hasPrefix("/") && !path.hasPrefix("?") {
      guard let url = URLParts(path.hasPrefix("//") ? base.scheme + ":" + path : path), url.origin == base.origin else {
        return nil
      }
      return url.path.hasPrefix("/") ? String(url.path) : "/" + url.path
    }
    if path.hasPrefix("/") { return String(path) }
    // Relative to the path that was requested.
    let requested = (request.rootedPath ?? base.path + request.path).prefix { $0 != "?" }
    if path.hasPrefix("?") { return String(requested + path) }
    if path.hasPrefix("./") { path = path.dropFirst(2) }
    if path.hasPrefix("../") { return nil }
    return String(requested[...(requested.lastIndex(of: "/") ?? requested.startIndex)] + path)
  }

  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool { delegate?.didReceiveBody(body) ?? true }

  func didComplete(_ failure: String?) {
    guard let next = next.take() else {
      exchange = nil
      delegate.take()?.didComplete(failure)
      return
    }
    request = next
    exchange = delegate == nil ? nil : client.start(next, delegate: self)
    if exchange == nil { delegate.take()?.didComplete("The redirection is not valid.") }
  }
}
