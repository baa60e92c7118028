import CCurl
import EventLoop
import Glibc

/// A libcurl easy handle for one HTTP exchange. The ``CurlMulti`` that runs it owns it until the transfer ends.
@safe
final class CurlTransfer: HTTPExchange {
  let easy: UnsafeMutableRawPointer
  /// The delegate, retained until the transfer ends, which also breaks the reference cycle between the two.
  var delegate: (any HTTPExchangeDelegate)?
  private weak var multi: CurlMulti?
  private var headers: UnsafeMutablePointer<curl_slist>?
  private var errorBuffer: UnsafeMutablePointer<CChar>
  private var head = HTTPResponseHead()
  private var hasHead = false
  private var headerLines = 0
  /// Whether the delegate has paused the response.
  private var isPaused = false
  /// Whether libcurl has received more and withholds it.
  private var isWithheld = false
  /// A large request body, retained until it has been sent.
  private var upload: [UInt8] = []
  private var uploaded = 0

  /// The maximum size of a body that libcurl copies. It would retain the copy of a larger one for the lifetime of the
  /// handle.
  private static let maximumCopiedBytes = 16 * 1024

  /// Creates a transfer. Returns nil if memory is exhausted or libcurl rejects the URL.
  init?(_ request: borrowing HTTPRequest, to server: CurlMulti.Server, _ multi: CurlMulti) {
    guard let easy = unsafe curl_easy_init() else { return nil }
    self.multi = multi
    unsafe self.easy = easy
    unsafe errorBuffer = .allocate(capacity: Int(CURL_ERROR_SIZE))
    unsafe errorBuffer.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
    unsafe headers = nil
    // An empty Expect keeps libcurl from waiting for "100 Continue" before it sends a body over 1 MiB.
    for header in request.headers + ["Expect:"] {
      guard let longer = unsafe curl_slist_append(headers, header) else { return nil }
      unsafe headers = longer
    }
    guard unsafe ccurl_set_string(easy, CURLOPT_URL, server.url(of: request)) == CURLE_OK else { return nil }
    unsafe set(CURLOPT_ERRORBUFFER, errorBuffer)
    unsafe set(CURLOPT_HTTPHEADER, headers)
    unsafe set(CURLOPT_PRIVATE, Unmanaged.passUnretained(self).toOpaque())
    if let body = request.body { setBody(body) }
    unsafe ccurl_set_string(easy, CURLOPT_PROTOCOLS_STR, "http,https")
    unsafe ccurl_set_string(easy, CURLOPT_USERAGENT, "sluice")
    if let file = server.certificateFile { unsafe ccurl_set_string(easy, CURLOPT_CAINFO, file) }
    // An empty string, unlike none, also keeps libcurl from reading the environment.
    unsafe ccurl_set_string(easy, CURLOPT_PROXY, server.proxy.url ?? "")
    unsafe ccurl_set_string(easy, CURLOPT_NOPROXY, server.proxy.exceptions ?? "")
    // HTTP/2 if TLS negotiates it, with many transfers per connection; otherwise HTTP/1.1. CURLOPT_PIPEWAIT stays
    // unset, because it makes transfers to a new HTTP/1.1 host wait until the first one ends. A libcurl without HTTP/2
    // rejects this option and uses HTTP/1.1.
    unsafe ccurl_set_long(easy, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_2TLS)
    set(CURLOPT_NOSIGNAL, 1)
    // Removing a transfer during its name lookup does not wait for the resolver thread.
    set(CURLOPT_QUICK_EXIT, 1)
    set(CURLOPT_TCP_KEEPALIVE, 1)
    // The default of 16 KiB is meant for downloads. Tokens arrive in hundreds of bytes, and every open stream has a
    // buffer.
    set(CURLOPT_BUFFERSIZE, 2048)
    set(CURLOPT_UPLOAD_BUFFERSIZE, 16 * 1024)
    unsafe set(CURLOPT_WRITEDATA, Unmanaged.passUnretained(self).toOpaque())
    unsafe ccurl_set_callback(easy, CURLOPT_WRITEFUNCTION) { bytes, _, count, context in
      guard let bytes = unsafe bytes, let context = unsafe context else { return 0 }
      // Safe: the multi retains the transfer for as long as libcurl has its handle.
      let transfer = unsafe Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
      let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count).bindMemory(to: UInt8.self)
      return unsafe transfer.didReceiveBody(buffer.span) ? count : Int(CURL_WRITEFUNC_PAUSE)
    }
    unsafe set(CURLOPT_HEADERDATA, Unmanaged.passUnretained(self).toOpaque())
    unsafe ccurl_set_callback(easy, CURLOPT_HEADERFUNCTION) { bytes, _, count, context in
      guard let bytes = unsafe bytes, let context = unsafe context else { return 0 }
      let transfer = unsafe Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
      let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
      return unsafe transfer.didReceiveHeaderLine(String(decoding: buffer, as: UTF8.self)) ? count : 0
    }
  }

  private func setBody(_ body: [UInt8]) {
    set(CURLOPT_POST, 1)
    set(CURLOPT_POSTFIELDSIZE, body.count)
    // In both cases libcurl resends the body by itself if a reused connection turns out to be closed.
    guard body.count <= Self.maximumCopiedBytes else { return setUpload(body) }
    unsafe body.withUnsafeBytes { bytes in
      unsafe set(CURLOPT_COPYPOSTFIELDS, UnsafeMutableRawPointer(mutating: bytes.baseAddress))
    }
  }

  private func setUpload(_ body: [UInt8]) {
    upload = body
    unsafe set(CURLOPT_READDATA, Unmanaged.passUnretained(self).toOpaque())
    unsafe ccurl_set_callback(easy, CURLOPT_READFUNCTION) { bytes, size, count, context in
      guard let bytes = unsafe bytes, let context = unsafe context else { return Int(CURL_READFUNC_ABORT) }
      // Safe for the same reason as the body callback; libcurl's buffer has `size * count` bytes.
      let transfer = unsafe Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue()
      return unsafe transfer.readUpload(into: UnsafeMutableRawBufferPointer(start: bytes, count: size * count))
    }
    unsafe set(CURLOPT_SEEKDATA, Unmanaged.passUnretained(self).toOpaque())
    unsafe ccurl_set_seek_callback(easy) { context, offset, origin in
      guard let context = unsafe context, origin == SEEK_SET else { return CURL_SEEKFUNC_FAIL }
      return unsafe Unmanaged<CurlTransfer>.fromOpaque(context).takeUnretainedValue().seekUpload(to: Int(offset))
    }
  }

  private func readUpload(into buffer: UnsafeMutableRawBufferPointer) -> Int {
    let count = min(buffer.count, upload.count - uploaded)
    unsafe buffer.copyBytes(from: upload[uploaded..<(uploaded + count)])
    uploaded += count
    releaseUpload()
    return count
  }

  private func seekUpload(to offset: Int) -> CInt {
    guard (0...upload.count).contains(offset) else { return CURL_SEEKFUNC_FAIL }
    uploaded = offset
    return CURL_SEEKFUNC_OK
  }

  /// Releases the body once it has been sent and the head of the response has arrived, after which it is never resent.
  private func releaseUpload() {
    guard hasHead, uploaded == upload.count else { return }
    upload = []
    uploaded = 0
  }

  deinit {
    unsafe curl_easy_cleanup(easy)
    unsafe curl_slist_free_all(headers)
    unsafe errorBuffer.deallocate()
  }

  var isMultiplexed: Bool {
    var version = 0
    unsafe ccurl_get_long(easy, CURLINFO_HTTP_VERSION, &version)
    return version == CURL_HTTP_VERSION_2_0
  }

  var isConnected: Bool {
    var time: curl_off_t = 0
    unsafe ccurl_get_offset(easy, CURLINFO_PRETRANSFER_TIME_T, &time)
    return time > 0
  }

  /// The local port of the connection, which identifies the transfers that share it. 0 without a connection.
  var localPort: Int {
    var port = 0
    unsafe ccurl_get_long(easy, CURLINFO_LOCAL_PORT, &port)
    return port
  }

  /// Whether the transfer did not use a connection again (CURLINFO_NUM_CONNECTS(3)).
  var hasOpenedConnection: Bool {
    var count = 0
    unsafe ccurl_get_long(easy, CURLINFO_NUM_CONNECTS, &count)
    return count > 0
  }

  /// Whether the server's name has been resolved for this transfer, or it has a connection already.
  var hasAddress: Bool {
    var time: curl_off_t = 0
    unsafe ccurl_get_offset(easy, CURLINFO_NAMELOOKUP_TIME_T, &time)
    return time > 0 || localPort > 0
  }

  /// Resumes a paused transfer (curl_easy_pause(3)). Withheld data is delivered during this call.
  func resume() {
    isPaused = false
    if exchange(&isWithheld, with: false) { unsafe curl_easy_pause(easy, CURLPAUSE_CONT) }
  }

  func cancel() { multi?.remove(self) }

  /// Makes libcurl close the connection with this transfer, unless others use it (CURLOPT_FORBID_REUSE(3)).
  func forbidReuse() { set(CURLOPT_FORBID_REUSE, 1) }

  /// Makes libcurl send its buffered output for the HTTP/2 connection, as it does whenever one of the connection's
  /// streams is paused or resumed. This call does not pause receiving.
  func flushConnection() {
    unsafe curl_easy_pause(easy, CURLPAUSE_SEND)
    unsafe curl_easy_pause(easy, CURLPAUSE_CONT)
  }

  func didComplete(_ result: CURLcode) {
    if result == CURLE_OK {
      delegate.take()?.didComplete(nil)
      return
    }
    var message = unsafe String(cString: errorBuffer)
    if message.isEmpty { message = unsafe String(cString: curl_easy_strerror(result)) }
    delegate.take()?.didComplete(message)
  }

  /// Returns false to have libcurl withhold the bytes until the transfer is resumed.
  private func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool {
    if isPaused {
      isWithheld = true
      return false
    }
    if delegate?.didReceiveBody(body) == false { isPaused = true }
    return true
  }

  /// The maximum number of header lines, including trailers: more than any server sends.
  private static let maximumHeaderLines = 1000

  /// Handles one line of a head. Returning false terminates the transfer.
  private func didReceiveHeaderLine(_ line: String) -> Bool {
    headerLines += 1
    guard headerLines <= Self.maximumHeaderLines else { return false }
    let line = line.trimmingNewline
    if line.hasPrefix("HTTP/") {
      // Each response starts a new head: the fields of a 1xx response do not apply to the final one.
      head = HTTPResponseHead()
    } else if line.isEmpty {
      unsafe ccurl_get_long(easy, CURLINFO_RESPONSE_CODE, &head.status)
      guard head.status >= 200, !hasHead else { return true }
      hasHead = true
      releaseUpload()
      return delegate?.didReceiveHead(head) ?? true
    } else if let colon = line.firstIndex(of: ":") {
      let name = Array(line[..<colon].lowercased().utf8)
      let value = Array(line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }.utf8)
      head.readField(name: name.span, value: value.span)
    }
    return true
  }

  private func set(_ option: CURLoption, _ value: Int) {
    let result = unsafe ccurl_set_long(easy, option, value)
    precondition(result == CURLE_OK, "libcurl refuses option \(option.rawValue): \(result.rawValue)")
  }

  @unsafe private func set(_ option: CURLoption, _ value: UnsafeMutableRawPointer?) {
    let result = unsafe ccurl_set_pointer(easy, option, value)
    precondition(result == CURLE_OK, "libcurl refuses option \(option.rawValue): \(result.rawValue)")
  }
}

extension String {
  fileprivate var trimmingNewline: Substring {
    var text = self[...]
    while let last = text.last, last.isNewline { text.removeLast() }
    return text
  }
}
