import CCurl
import EventLoop

/// A client that uses the multi-socket interface of libcurl (libcurl-multi(3)) on an event loop, for TLS, HTTP/2 and
/// proxies. Runs any number of transfers without threads of their own. Confined to its loop, with the loop's lifetime.
@safe
final class CurlMulti: HTTPClient {
  private let multi: UnsafeMutableRawPointer
  private let reactor: Reactor
  private let server: Server
  private let counts: ConnectionCounts
  private var watches: [CInt: Watch] = [:]
  private var timer: Timer?
  /// The transfers that libcurl runs. This dictionary retains them.
  private var transfers: [ObjectIdentifier: CurlTransfer] = [:]
  /// The transfer that resolves the server's name. Only one does so at a time, because libcurl needs a thread and
  /// several descriptors for it; the others find the address in libcurl's cache.
  private var resolving: CurlTransfer?
  private var addressExpiry: LoopClock.Instant?
  /// The transfers that wait for the address, in order of arrival.
  private var waiting: [CurlTransfer] = []

  /// The time for which an address is assumed to be cached: a little less than libcurl's cache timeout
  /// (CURLOPT_DNS_CACHE_TIMEOUT(3)).
  private static let addressLifetime: Duration = .seconds(50)

  /// The server of all transfers.
  struct Server {
    /// The URL to which the paths of requests are appended.
    let baseURL: String
    /// A file of certificates to trust instead of the system's (CURLOPT_CAINFO(3)).
    let certificateFile: String?
    let proxy: HTTPProxy

    func url(of request: borrowing HTTPRequest) -> String {
      guard let path = request.rootedPath, let base = URLParts(baseURL) else { return baseURL + request.path }
      return base.scheme + "://" + base.authority + path
    }
  }

  /// - Parameter maximumIdleConnections: the maximum number of connections that stay open without a transfer.
  init(_ server: Server, on reactor: Reactor, maximumIdleConnections: Int, counts: ConnectionCounts) {
    self.counts = counts
    guard let multi = unsafe curl_multi_init() else { fatalError("out of memory") }
    unsafe self.multi = multi
    self.reactor = reactor
    self.server = server
    // Safe: only functions of this class make libcurl call the callbacks, and the handle is freed with this object.
    let context = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe ccurl_multi_set_socket_callback(
      multi,
      { _, socket, action, context, _ in
        guard let context = unsafe context else { return 0 }
        unsafe Unmanaged<CurlMulti>.fromOpaque(context).takeUnretainedValue().watch(socket, for: action)
        return 0
      }, context)
    unsafe ccurl_multi_set_timer_callback(
      multi,
      { _, milliseconds, context in
        guard let context = unsafe context else { return 0 }
        unsafe Unmanaged<CurlMulti>.fromOpaque(context).takeUnretainedValue().setTimer(milliseconds)
        return 0
      }, context)
    unsafe ccurl_multi_set_long(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, 1000)
    // The limit of idle connections. libcurl's default is four for every transfer that ever ran at the same time.
    unsafe ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, maximumIdleConnections)
  }

  deinit {
    // No callback refers to this object from here on.
    unsafe ccurl_multi_set_socket_callback(multi, nil, nil)
    unsafe ccurl_multi_set_timer_callback(multi, nil, nil)
    timer?.cancel()
    for watch in watches.values { watch.cancel() }
    for transfer in waiting { transfer.delegate = nil }
    for transfer in transfers.values {
      transfer.delegate = nil
      unsafe curl_multi_remove_handle(multi, transfer.easy)
    }
    unsafe curl_multi_cleanup(multi)
  }

  func start(_ request: consuming HTTPRequest, delegate: any HTTPExchangeDelegate) -> (any HTTPExchange)? {
    guard let transfer = CurlTransfer(request, to: server, self) else {
      return nil
    }
    transfer.delegate = delegate
    add(transfer)
    return transfer
  }

  var isIdle: Bool { transfers.isEmpty && waiting.isEmpty }

  private func add(_ transfer: CurlTransfer) {
    if addressExpiry.map({ $0 > reactor.now }) ?? false { return start(transfer) }
    if resolving != nil { return waiting.append(transfer) }
    resolving = transfer
    start(transfer)
  }

  private func start(_ transfer: CurlTransfer) {
    transfers[ObjectIdentifier(transfer)] = transfer
    unsafe curl_multi_add_handle(multi, transfer.easy)
  }

  /// Starts waiting transfers once the name lookup has ended: all of them if the address is known, otherwise the next
  /// one.
  private func checkAddress() {
    guard let transfer = resolving else { return }
    if transfer.hasAddress {
      addressExpiry = reactor.now + Self.addressLifetime
    } else if transfers[ObjectIdentifier(transfer)] != nil {
      return
    }
    resolving = nil
    for transfer in exchange(&waiting, with: []) { add(transfer) }
  }

  /// Cancels a transfer at once: over HTTP/1.1 its connection is closed, over HTTP/2 its stream is reset. The delegate
  /// is not called again. Must not be called from a delegate's `didReceiveHead` or `didReceiveBody`.
  func remove(_ transfer: CurlTransfer) {
    defer { checkAddress() }
    guard transfers[ObjectIdentifier(transfer)] != nil else {
      waiting.removeAll { $0 === transfer }
      transfer.delegate = nil
      return
    }
    transfer.delegate = nil
    let port = transfer.localPort
    // libcurl 7.88 leaves the RST_STREAM of an HTTP/2 transfer in its buffer until the connection sends something else,
    // and the model would continue. So a connection without other transfers is closed, and a shared one is flushed.
    transfer.forbidReuse()
    unsafe curl_multi_remove_handle(multi, transfer.easy)
    transfers[ObjectIdentifier(transfer)] = nil
    if transfer.isMultiplexed, port > 0 { transfers.values.first { $0.localPort == port }?.flushConnection() }
  }

  private func watch(_ socket: CInt, for action: CInt) {
    if action == CURL_POLL_REMOVE {
      watches.removeValue(forKey: socket)?.cancel()
      return
    }
    // Level-triggered: libcurl does not drain a socket under TLS or HTTP/2.
    var interest: Readiness = action & CURL_POLL_IN != 0 ? .readable : .none
    if action & CURL_POLL_OUT != 0 { interest = interest | .writable }
    do {
      if let watch = watches[socket] {
        try watch.change(to: interest)
      } else {
        watches[socket] = try reactor.watch(socket, for: interest) { [unowned self] ready in
          var events: CInt = 0
          if ready.contains(.readable) { events |= CURL_CSELECT_IN }
          if ready.contains(.writable) { events |= CURL_CSELECT_OUT }
          if ready.contains(anyOf: .error | .hangup) { events |= CURL_CSELECT_ERR }
          act(on: socket, events)
        }
      }
    } catch {
      // Without a watch the transfer makes no progress; the time limits of libcurl and of the stream terminate it.
    }
  }

  private func setTimer(_ milliseconds: Int) {
    timer?.cancel()
    timer = nil
    guard milliseconds >= 0 else { return }
    // Deferred even for 0, because libcurl is on the call stack.
    timer = reactor.schedule(after: .milliseconds(milliseconds)) { [unowned self] in
      act(on: CURL_SOCKET_TIMEOUT, 0)
    }
  }

  private func act(on socket: CInt, _ events: CInt) {
    var running: CInt = 0
    unsafe curl_multi_socket_action(multi, socket, events, &running)
    var queued: CInt = 0
    while let message = unsafe curl_multi_info_read(multi, &queued) {
      guard unsafe message.pointee.msg == CURLMSG_DONE, let easy = unsafe message.pointee.easy_handle else { continue }
      let result = unsafe ccurl_message_result(message)
      var context: UnsafeMutableRawPointer?
      unsafe ccurl_get_pointer(easy, CURLINFO_PRIVATE, &context)
      guard let context = unsafe context else { continue }
      // Safe: libcurl runs only transfers that `transfers` retains.
      let transfer = unsafe Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
      unsafe curl_multi_remove_handle(multi, easy)
      transfers[ObjectIdentifier(transfer)] = nil
      counts.count(isReused: !transfer.hasOpenedConnection)
      if transfer === resolving {
        // The waiting transfers would fail too, each after the same delay.
        let failed = result == CURLE_COULDNT_RESOLVE_HOST ? exchange(&waiting, with: []) : []
        checkAddress()
        for transfer in failed { transfer.didComplete(result) }
      }
      transfer.didComplete(result)
    }
    if resolving != nil { checkAddress() }
  }
}
