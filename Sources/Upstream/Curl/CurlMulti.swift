import CCurl
import EventLoop

/// libcurl's multi-socket interface (libcurl-multi(3)) on an event loop: any number of transfers, no thread of their
/// own, connections kept and used again. One for each loop; it lives as long as the loop does.
@safe
final class CurlMulti {
  private let multi: UnsafeMutableRawPointer
  private let reactor: Reactor
  private let isPlain: Bool
  private var watches: [CInt: Watch] = [:]
  private var timer: Timer?
  /// The transfers that libcurl runs: this keeps them.
  private var transfers: [ObjectIdentifier: CurlTransfer] = [:]
  /// The transfer that looks the server's name up. One at a time: libcurl needs a thread and some
  /// descriptors for it, and the others find the address in its cache.
  private var resolving: CurlTransfer?
  private var isAddressKnownUntil: LoopClock.Instant?
  /// Those that wait for it, the first one first.
  private var waiting: [CurlTransfer] = []

  /// A little less than libcurl keeps an address (CURLOPT_DNS_CACHE_TIMEOUT(3)).
  private static let addressLifetime: Duration = .seconds(50)

  /// - Parameters:
  ///   - isPlain: whether all its transfers are to be HTTP/1.1 without TLS.
  ///   - maximumIdleConnections: connections that are kept open without a transfer.
  init(on reactor: Reactor, isPlain: Bool, maximumIdleConnections: Int) {
    guard let multi = unsafe curl_multi_init() else { fatalError("out of memory") }
    unsafe self.multi = multi
    self.reactor = reactor
    self.isPlain = isPlain
    // Safe: the callbacks are called by functions of this class only, and the handle goes with it.
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
    // Of idle connections; its own limit would be four for every transfer that ever ran at the same time.
    unsafe ccurl_multi_set_long(multi, CURLMOPT_MAXCONNECTS, maximumIdleConnections)
  }

  deinit {
    // Nothing of this object is called back from here on.
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

  /// Begins a transfer. Its delegate hears of it in a later turn of the loop.
  func add(_ transfer: CurlTransfer) {
    if isAddressKnownUntil.map({ $0 > reactor.now }) ?? false { return start(transfer) }
    if resolving != nil { return waiting.append(transfer) }
    resolving = transfer
    start(transfer)
  }

  private func start(_ transfer: CurlTransfer) {
    transfers[ObjectIdentifier(transfer)] = transfer
    unsafe curl_multi_add_handle(multi, transfer.easy)
  }

  /// Lets those go on that wait for an address: all of them when it is known, else the next one.
  private func checkAddress() {
    guard let transfer = resolving else { return }
    if transfer.hasAddress {
      isAddressKnownUntil = reactor.now + Self.addressLifetime
    } else if transfers[ObjectIdentifier(transfer)] != nil {
      return
    }
    resolving = nil
    for transfer in exchange(&waiting, with: []) { add(transfer) }
  }

  /// Ends a transfer at once: over HTTP/1.1 its connection is closed, over HTTP/2 its stream is reset. The delegate
  /// is not called again. Not to be called from a delegate's `received`.
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
    // and the model would go on. A connection that is left alone is closed, one that others use is flushed.
    transfer.forbidReuse()
    unsafe curl_multi_remove_handle(multi, transfer.easy)
    transfers[ObjectIdentifier(transfer)] = nil
    if !isPlain, port > 0 { transfers.values.first { $0.localPort == port }?.flushConnection() }
  }

  private func watch(_ socket: CInt, for action: CInt) {
    if action == CURL_POLL_REMOVE {
      watches.removeValue(forKey: socket)?.cancel()
      return
    }
    var interest: Readiness = action & CURL_POLL_IN != 0 ? .readable : .none
    if action & CURL_POLL_OUT != 0 { interest = interest | .writable }
    // Over plain HTTP/1.1 libcurl reads until nothing is left, so a change is all it needs to hear of, and the kernel
    // need not look at every socket twice. It does not write until nothing fits, nor read so under TLS or HTTP/2.
    if isPlain, action == CURL_POLL_IN { interest = .readable | .edgeTriggered }
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
      // Without a watch the transfer would stand still: libcurl's and the session's time limits end it.
    }
  }

  private func setTimer(_ milliseconds: Int) {
    timer?.cancel()
    timer = nil
    guard milliseconds >= 0 else { return }
    // Not at once even for 0: this is called from within libcurl.
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
      // Safe: it is in `transfers`, for libcurl runs no others.
      let transfer = unsafe Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
      unsafe curl_multi_remove_handle(multi, easy)
      transfers[ObjectIdentifier(transfer)] = nil
      if transfer === resolving {
        // The others would not find it either, each after as long a time.
        let failed = result == CURLE_COULDNT_RESOLVE_HOST ? exchange(&waiting, with: []) : []
        checkAddress()
        for transfer in failed { transfer.didComplete(result) }
      }
      transfer.didComplete(result)
    }
    if resolving != nil { checkAddress() }
  }
}
