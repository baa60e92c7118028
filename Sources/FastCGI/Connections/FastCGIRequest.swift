import CFastCGI
import EventLoop
import Glibc

/// The libfcgi state of one request. All use of the library is encapsulated in this type.
///
/// Belongs to its loop. libfcgi reads from memory, so it never waits for a peer. It never owns the connection's
/// descriptor: it writes to a borrowed number, which is reset before libfcgi frees anything.
@safe
struct FastCGIRequest: ~Copyable {
  /// The maximum payload of one record: libfcgi's output buffer has 8,192 bytes, including the record header.
  static let maximumWriteBytes = 8184

  /// FCGI_RESPONDER (specification 5.1), which libfcgi's public header does not define.
  private static let responderRole = 1

  private let raw: UnsafeMutablePointer<FCGX_Request>
  /// The output stream of ``raw``, while libfcgi holds buffers and streams for this request.
  private var output: UnsafeMutablePointer<FCGX_Stream>?
  /// The system error that prevented reading the request. Nil if the peer's request is invalid.
  private(set) var failure: SystemError?
  /// Whether the peer has sent, or is still sending, a body that is not read.
  private(set) var hasUnreadBody = false

  /// Initializes libfcgi. Must be called before the first request; can be called repeatedly. Installs handlers for
  /// signals that have none.
  static func initializeLibrary() { library }

  /// FCGX_Init is not thread-safe; the initializer of a static constant runs once.
  private static let library: Void = { FCGX_Init() }()

  init() {
    unsafe raw = .allocate(capacity: 1)
    unsafe output = nil
    unsafe FCGX_InitRequest(raw, -1, 0)
  }

  /// Whether the web server requests that the connection remain open for another request (FCGI_KEEP_CONN).
  var keepsConnection: Bool { unsafe raw.pointee.keepConnection != 0 }

  /// The id of the request on its connection.
  var id: UInt16 { unsafe UInt16(truncatingIfNeeded: raw.pointee.requestId) }

  /// Parses the request in `records`. Its response is written to `connection`.
  ///
  /// - Returns: nil if the request is invalid or ``failure`` is set. Nothing has been written to `connection` in that
  ///   case.
  mutating func read(
    _ records: RequestRecords, through server: ConnectionServer, respondingTo connection: CInt
  ) -> Request? {
    let parameters: Parameters?
    do throws(SystemError) {
      parameters = try server.reading(records.head) { readHead(from: $0, byteCount: records.parameters.count) }
    } catch {
      failure = error
      return nil
    }
    guard let parameters else { return nil }
    unsafe raw.pointee.ipcFd = connection
    var request = Request(parameters: parameters)
    if records.status == .complete {
      request.setBody(records.body, limit: server.limits.maximumBodyBytes)
    } else {
      request.bodyIssue = .tooLarge
      // The rest of an unread body would be parsed as the next request.
      hasUnreadBody = true
      unsafe raw.pointee.keepConnection = 0
    }
    return request
  }

  /// Parses BEGIN_REQUEST and PARAMS, and closes `descriptor`.
  private mutating func readHead(from descriptor: CInt, byteCount: Int) -> Parameters? {
    unsafe raw.pointee.ipcFd = descriptor
    // Makes FCGX_Accept_r read from `ipcFd` instead of accepting a connection.
    unsafe raw.pointee.keepConnection = 1
    // Keeps a failing FCGX_Accept_r from waiting two seconds for the peer to close.
    unsafe FCGX_Detach(raw)
    // FCGX_Accept_r closes the descriptor if it fails.
    guard unsafe FCGX_Accept_r(raw) == 0 else { return nil }
    unsafe output = raw.pointee.out
    defer {
      close(descriptor)
      unsafe FCGX_FreeStream(&raw.pointee.in)
    }
    // libfcgi accepts truncated PARAMS as a request; only the stream's error reveals them.
    guard unsafe FCGX_GetError(raw.pointee.in) == 0, unsafe raw.pointee.role == CInt(Self.responderRole) else {
      return nil
    }
    return parameters(byteCount: byteCount)
  }

  /// - Parameter byteCount: an upper bound for the size of all parameters.
  private func parameters(byteCount: Int) -> Parameters {
    var parameters = Parameters()
    parameters.reserveCapacity(bytes: byteCount, count: 32)
    var next = unsafe raw.pointee.envp
    while let entry = unsafe next?.pointee {
      // Safe: `envp` is a NULL-terminated array of NUL-terminated strings, and only this function uses it.
      let bytes = unsafe UnsafeRawBufferPointer(start: entry, count: strlen(entry)).bindMemory(to: UInt8.self)
      unsafe parameters.add(bytes.span)
      unsafe next = next?.successor()
    }
    return parameters
  }

  /// Sends one STDOUT record of up to ``maximumWriteBytes``. Blocks unless the descriptor is writable. Returns false on
  /// failure.
  func write(_ bytes: borrowing Span<UInt8>) -> Bool {
    precondition(bytes.count <= Self.maximumWriteBytes)
    guard let output = unsafe output else { return false }
    return unsafe bytes.count == 0 || (Self.buffer(bytes, in: output) && FCGX_FFlush(output) == 0)
  }

  /// Sends the last bytes of the output, its end and END_REQUEST. Blocks unless the descriptor is writable. Returns false
  /// if the peer has closed the connection.
  mutating func finish(_ bytes: borrowing Span<UInt8>) -> Bool {
    guard let output = unsafe output else { return false }
    let isComplete =
      unsafe Self.buffer(bytes, in: output) && FCGX_FClose(raw.pointee.err) == 0 && FCGX_FClose(output) == 0
    release()
    return isComplete
  }

  private static func buffer(_ bytes: borrowing Span<UInt8>, in output: UnsafeMutablePointer<FCGX_Stream>) -> Bool {
    unsafe bytes.withUnsafeBytes { bytes in
      let chars = unsafe bytes.bindMemory(to: CChar.self)
      return unsafe chars.isEmpty || FCGX_PutStr(chars.baseAddress, CInt(chars.count), output) == CInt(chars.count)
    }
  }

  /// Frees libfcgi's buffers and streams. The descriptor stays open, because libfcgi does not own it.
  mutating func release() {
    freeStreams()
    unsafe output = nil
  }

  private func freeStreams() {
    guard unsafe output != nil else { return }
    unsafe raw.pointee.ipcFd = -1
    unsafe FCGX_Free(raw, 0)
  }

  deinit {
    freeStreams()
    unsafe raw.deallocate()
  }
}
