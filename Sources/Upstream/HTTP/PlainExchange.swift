import EventLoop
import Glibc

/// One exchange of a ``PlainHTTPClient``, which owns it until it ends.
final class PlainExchange: HTTPExchange {
  private unowned let client: PlainHTTPClient
  private var delegate: (any HTTPExchangeDelegate)?
  /// The request, until the server has received it.
  private var request: [UInt8]
  /// The connections that are being established: the first one to succeed is used (RFC 8305).
  private var attempts: [HTTPConnection] = []
  private var addresses: ArraySlice<SocketAddress> = []
  private var nextAttempt: Timer?
  private var lastError = "The server has no address."
  private var connection: HTTPConnection?
  private var hasRetried = false

  let isMultiplexed = false
  var isConnected: Bool { connection != nil }

  /// The time after which the next address is tried as well.
  private static let attemptDelay: Duration = .milliseconds(250)

  init(_ request: [UInt8], _ delegate: any HTTPExchangeDelegate, _ client: PlainHTTPClient) {
    self.request = request
    self.delegate = delegate
    self.client = client
  }

  func start() {
    if let connection = client.takeIdleConnection() {
      self.connection = connection
      client.counts.count(isReused: true)
      if let delegate { connection.send(exchange(&request, with: []), for: self, delegate) }
    } else {
      client.counts.count(isReused: false)
      connect()
    }
  }

  func resume() { connection?.resume() }

  func cancel() {
    guard delegate != nil else { return }
    delegate = nil
    release()
  }

  /// Closes whatever belongs to the exchange, and makes the client release it.
  private func release() {
    nextAttempt?.cancel()
    client.addressLookup.cancel(self)
    for attempt in exchange(&attempts, with: []) { attempt.close() }
    connection.take()?.close()
    client.remove(self)
  }

  private func complete(_ failure: String?) {
    let delegate = delegate.take()
    release()
    delegate?.didComplete(failure)
  }

  // MARK: Connecting

  private func connect() {
    if let addresses = client.addressLookup.addresses { return connect(to: addresses) }
    client.addressLookup.start(for: self) { [unowned self] result in
      switch result {
      case .success(let addresses): connect(to: addresses)
      case .failure(let failure): complete(failure.reason)
      }
    }
  }

  private func connect(to addresses: [SocketAddress]) {
    self.addresses = addresses[...]
    tryNextAddress()
  }

  private func tryNextAddress() {
    nextAttempt?.cancel()
    while let address = addresses.popFirst() {
      do throws(SystemError) {
        let attempt = try HTTPConnection(to: address, on: client.reactor)
        attempts.append(attempt)
        if !addresses.isEmpty {
          nextAttempt = client.reactor.schedule(after: Self.attemptDelay) { [unowned self] in tryNextAddress() }
        }
        if let delegate { attempt.send(request, for: self, delegate) }
        return
      } catch { lastError = error.description }
    }
    guard attempts.isEmpty else { return }
    client.addressLookup.invalidate()
    // Deferred, because the exchange may be starting.
    nextAttempt = client.reactor.schedule(after: .zero) { [unowned self] in complete(lastError) }
  }

  /// Called when the connection is established, before the request is sent.
  func didConnect(_ connection: HTTPConnection) {
    guard self.connection !== connection else { return }
    nextAttempt?.cancel()
    addresses = []
    for attempt in exchange(&attempts, with: []) where attempt !== connection { attempt.close() }
    self.connection = connection
    request = []
  }

  // MARK: Response

  /// Called when the delegate has rejected the head of the response.
  func didReject() { complete("The response was rejected.") }

  func didReceiveEnd(_ connection: HTTPConnection, isReusable: Bool) {
    self.connection = nil
    if isReusable { client.keepIdle(connection) } else { connection.close() }
    complete(nil)
  }

  /// Called when a connection has failed.
  func didFail(_ failed: HTTPConnection, _ reason: String) {
    guard failed === connection else {
      attempts.removeAll { $0 === failed }
      failed.close()
      lastError = reason
      return tryNextAddress()
    }
    // The server may have closed an idle connection just before the request arrived (RFC 9112, 9.3.1).
    guard failed.isRequestLost, !hasRetried else { return complete(reason) }
    hasRetried = true
    request = failed.unansweredRequest
    failed.close()
    connection = nil
    connect()
  }
}
