import EventLoop

/// A client of one `http://` server, over HTTP/1.1 and without a proxy. Confined to its loop, with the loop's lifetime.
///
/// It does what libcurl does for such URLs, with one system call per part of a response, and with a quarter of the
/// memory per stream.
final class PlainHTTPClient: HTTPClient {
  let reactor: Reactor
  let addressLookup: AddressLookup
  private let origin: HTTPOrigin
  /// The end of the request line, and the fields that every request has.
  private let commonFields: [UInt8]
  let counts: ConnectionCounts
  private let maximumIdleConnections: Int
  private let isShortOfDescriptors: @Sendable () -> Bool
  /// The connections without an exchange, the most recently used one last.
  private var idle: [HTTPConnection] = []
  /// The exchanges that have not ended. This dictionary retains them.
  private var exchanges: [ObjectIdentifier: PlainExchange] = [:]

  /// - Parameters:
  ///   - maximumIdleConnections: the maximum number of connections that stay open without an exchange.
  ///   - isShortOfDescriptors: whether connections should be closed instead of reused.
  init(
    _ origin: HTTPOrigin, on reactor: Reactor, maximumIdleConnections: Int,
    isShortOfDescriptors: @escaping @Sendable () -> Bool, counts: ConnectionCounts
  ) {
    self.counts = counts
    self.isShortOfDescriptors = isShortOfDescriptors
    self.origin = origin
    commonFields = Array(" HTTP/1.1\r\nHost: \(origin.authority)\r\nUser-Agent: sluice\r\n".utf8)
    self.reactor = reactor
    self.maximumIdleConnections = maximumIdleConnections
    addressLookup = AddressLookup(host: origin.host, port: origin.port, on: reactor)
  }

  func start(_ request: consuming HTTPRequest, delegate: any HTTPExchangeDelegate) -> (any HTTPExchange)? {
    let exchange = PlainExchange(encode(request), delegate, self)
    exchanges[ObjectIdentifier(exchange)] = exchange
    exchange.start()
    return exchange
  }

  var isIdle: Bool { exchanges.isEmpty }

  func remove(_ exchange: PlainExchange) { exchanges[ObjectIdentifier(exchange)] = nil }

  /// Returns the request as bytes (RFC 9112, 3).
  private func encode(_ request: borrowing HTTPRequest) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(1024 + (request.body?.count ?? 0))
    bytes += (request.body == nil ? "GET " : "POST ").utf8
    if let path = request.rootedPath {
      bytes += path.utf8
    } else {
      bytes += origin.path.utf8
      bytes += request.path.utf8
    }
    bytes += commonFields
    for header in request.headers {
      bytes += header.utf8
      bytes += "\r\n".utf8
    }
    if let body = request.body {
      bytes += "Content-Length: ".utf8
      bytes += String(body.count).utf8
      bytes += "\r\n\r\n".utf8
      bytes += body
    } else {
      bytes += "\r\n".utf8
    }
    return bytes
  }

  // MARK: Idle connections

  func takeIdleConnection() -> HTTPConnection? {
    while let connection = idle.popLast() {
      connection.onIdleEvent = nil
      if connection.isUsable() { return connection }
      connection.close()
    }
    return nil
  }

  /// Keeps a connection for the next exchange, or closes it if that is not possible.
  func keepIdle(_ connection: HTTPConnection) {
    if isShortOfDescriptors() { return connection.close() }
    idle.append(connection)
    connection.onIdleEvent = { [unowned self, unowned connection] in
      idle.removeAll { $0 === connection }
      connection.close()
    }
    if idle.count > maximumIdleConnections { idle.removeFirst().close() }
  }
}
