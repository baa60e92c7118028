import EventLoop
import Glibc

/// A TCP connection to an HTTP server, which carries one exchange at a time. Confined to its loop.
///
/// Its exchange owns it, or its client while it is idle.
final class HTTPConnection: ReadinessHandler {
  /// The exchange that the connection carries; nil while it is idle and once it is closed. Unowned, because a weak
  /// reference would make every retain of its object slow. The exchange clears it before it is deallocated.
  private unowned var exchange: PlainExchange?
  /// The receiver of the body, which is passed to it directly; nil when ``exchange`` is.
  private var delegate: (any HTTPExchangeDelegate)?
  /// Called when an idle connection becomes readable or is closed by the peer: it can carry no further exchange.
  var onIdleEvent: (() -> Void)?

  private let descriptor: Descriptor
  private let reactor: Reactor
  private var watch: Watch?
  private var parser = HTTPResponseParser()
  private var request: [UInt8] = []
  private var sent = 0
  private var isConnected = false
  /// Whether an exchange has been completed on the connection, so that the peer can close it at any time.
  private(set) var isReused = false
  /// Whether the peer has closed its sending side or the connection: everything until the end must be read.
  private var isPeerClosed = false
  private var isPaused = false
  private var isReceiving = false
  private var idleSince: LoopClock.Instant
  private var sentAt: LoopClock.Instant

  /// The maximum number of consecutive reads, so that a server that never stops sending does not starve the loop's
  /// other streams.
  private static let maximumReads = 16
  /// The maximum time without an exchange after which a connection is reused. Network equipment forgets silent ones.
  private static let maximumIdleTime: Duration = .seconds(60)
  /// The maximum time after a request for the connection to turn out to be closed.
  private static let maximumLossTime: Duration = .seconds(1)

  /// Starts to connect to `address`.
  init(to address: SocketAddress, on reactor: Reactor) throws(SystemError) {
    self.reactor = reactor
    idleSince = reactor.now
    sentAt = reactor.now
    descriptor = try address.connect()
    // Both directions for the lifetime of the connection: with edge-triggered events, a writable socket causes none.
    watch = try reactor.watch(
      descriptor.number, for: .readable | .writable | .peerClosed | .edgeTriggered, handler: self)
  }

  deinit { watch?.cancelBeforeClose() }

  /// Returns whether the connection can carry another exchange: it was not idle for too long, and the server has neither
  /// closed it nor sent anything since the last response, which would be taken for the next one.
  func isUsable() -> Bool {
    guard reactor.now - idleSince <= Self.maximumIdleTime else { return false }
    var byte: UInt8 = 0
    return unsafe recv(descriptor.number, &byte, 1, CInt(MSG_PEEK | MSG_DONTWAIT)) < 0 && errno == EAGAIN
  }

  /// Whether the server closed the connection before the request could reach it: the connection was idle, and nothing of
  /// a response has arrived. A failure that comes later says nothing of the kind, and the model could run twice.
  var isRequestLost: Bool {
    isReused && !parser.hasBegun && reactor.now - sentAt < Self.maximumLossTime
  }

  /// Sends a request as soon as the connection is established.
  func send(_ request: [UInt8], for exchange: PlainExchange, _ delegate: any HTTPExchangeDelegate) {
    self.exchange = exchange
    self.delegate = delegate
    self.request = request
    sent = 0
    sentAt = reactor.now
    sendRequest()
  }

  /// The request, if it can be repeated on another connection.
  var unansweredRequest: [UInt8] { request }

  /// Closes the connection without a further call of its exchange.
  func close() {
    exchange = nil
    delegate = nil
    onIdleEvent = nil
    watch?.cancelBeforeClose()
    watch = nil
    request = []
  }

  func handleReadiness(_ ready: Readiness) {
    if ready.contains(anyOf: .peerClosed | .hangup | .error) { isPeerClosed = true }
    guard delegate != nil else {
      // An event can report the writable socket alone, when its bytes have been read already.
      if isPeerClosed || ready.contains(.readable) { onIdleEvent?() }
      return
    }
    if sent < request.count, ready.contains(.writable) { sendRequest() }
    if isPeerClosed || ready.contains(.readable) { receive() }
  }

  // MARK: Request

  /// Sends as much of the request as the socket accepts. While the socket is connecting, send(2) fails with EAGAIN.
  private func sendRequest() {
    while sent < request.count {
      let count = unsafe request[sent...].withUnsafeBufferPointer { bytes in
        unsafe Glibc.send(descriptor.number, bytes.baseAddress, bytes.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
      }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return }
      if count < 0 {
        if !isConnected { exchange?.didFail(self, SystemError("send").reason) }
        // The server may have responded before it closed the connection: recv(2) reports the error after that.
        return receiveSoon()
      }
      if !isConnected {
        isConnected = true
        exchange?.didConnect(self)
      }
      sent += count
    }
    // Only a request on a reused connection is repeated.
    if !isReused { request = [] }
    sent = request.count
  }

  private var isRequestSent: Bool { sent == request.count }

  // MARK: Response

  /// Continues to receive after a pause.
  func resume() {
    isPaused = false
    if !isReceiving { receive() }
  }

  private func receiveSoon() {
    _ = reactor.schedule(after: .zero) { [weak self] in
      if let self, delegate != nil, !isPaused { receive() }
    }
  }

  private func receive() {
    guard !isPaused else { return }
    isReceiving = true
    defer { isReceiving = false }
    for _ in 0..<Self.maximumReads {
      let count = reactor.receiveBuffer.receive(from: descriptor.number) { parse($0) }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return }
      guard count > 0 else { return didClose(count == 0 ? nil : SystemError("read")) }
      if delegate == nil || isPaused { return }
      // The socket is drained. What arrives from now on causes another event.
      if count < ReceiveBuffer.capacity, !isPeerClosed { return }
    }
    receiveSoon()
  }

  private func parse(_ bytes: borrowing Span<UInt8>) {
    if isReused, !request.isEmpty, isRequestSent {
      request = []
      sent = 0
    }
    var offset = 0
    do throws(HTTPResponseParser.Malformed) {
      while let delegate {
        switch try parser.next(bytes, at: &offset) {
        case .body(let range):
          if !delegate.didReceiveBody(bytes.extracting(range)) { isPaused = true }
        case .incomplete: return
        case .head(let head):
          if !delegate.didReceiveHead(head) { exchange?.didReject() }
        case .end:
          let isReusable = parser.isReusable && isRequestSent && offset == bytes.count && !isPeerClosed
          return didReceiveEnd(isReusable: isReusable)
        }
      }
    } catch {
      exchange?.didFail(self, "The response is malformed: \(error.reason).")
    }
  }

  private func didReceiveEnd(isReusable: Bool) {
    let exchange = exchange
    self.exchange = nil
    delegate = nil
    parser = HTTPResponseParser()
    request = []
    sent = 0
    isReused = true
    isPaused = false
    idleSince = reactor.now
    exchange?.didReceiveEnd(self, isReusable: isReusable)
  }

  private func didClose(_ error: SystemError?) {
    if error == nil, isConnected, parser.finish() { return didReceiveEnd(isReusable: false) }
    exchange?.didFail(self, error?.reason ?? "The server closed the connection.")
  }
}
