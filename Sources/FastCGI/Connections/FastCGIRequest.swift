import CFastCGI
import EventLoop
import Glibc

/// libfcgi's state of one request, and all that is done with it: everything of the library is behind this type.
///
/// Belongs to its loop. libfcgi reads from memory, so it waits for no peer, and never owns the connection's descriptor:
/// it writes to a borrowed number that is taken from it before it frees anything.
@safe
final class FastCGIRequest {
  /// The most payload bytes of one record of libfcgi's output buffer, which is 8,192 bytes with its header.
  static let maximumWriteBytes = 8184

  /// FCGI_RESPONDER (specification 5.1); libfcgi's public header does not have it.
  private static let responderRole = 1

  private let raw: UnsafeMutablePointer<FCGX_Request>
  /// What of the system's, not of the peer's, kept it from reading.
  private(set) var failure: SystemError?
  /// Whether libfcgi holds buffers and streams for this request.
  private var isOpen = false
  /// Whether the peer has sent, or still sends, a body that was not read.
  private(set) var hasUnreadBody = false

  /// Call it before the first request, as often as there are servers. It installs handlers for signals that nobody handles.
  static func initializeLibrary() { library }

  /// FCGX_Init is not thread-safe; the initializer of a constant runs once.
  private static let library: Void = { FCGX_Init() }()

  init() {
    unsafe raw = .allocate(capacity: 1)
    unsafe FCGX_InitRequest(raw, -1, 0)
  }

  /// Whether the web server wants to send another request on this connection.
  var keepsConnection: Bool { unsafe raw.pointee.keepConnection != 0 }

  /// Reads the request that `records` are. Its response goes to `connection`.
  ///
  /// - Returns: nil when what came was not a valid request. Nothing was answered then.
  func read(
    _ records: RequestRecords, through server: ConnectionServer, respondingTo connection: CInt
  ) -> Request? {
    let parameters: Parameters?
    do throws(SystemError) {
      parameters = try server.reading(records.head) { readHead(from: $0) }
    } catch {
      failure = error
      return nil
    }
    guard let parameters else { return nil }
    unsafe raw.pointee.ipcFd = connection
    var request = Request(parameters: parameters, body: records.body)
    let announced = parameters["CONTENT_LENGTH"].flatMap(Int.init)
    request.isBodyTooLarge =
      records.status == .bodyTooLarge || announced.map { $0 > server.limits.maximumBodyBytes } ?? false
    if request.isBodyTooLarge {
      request.body = []
      // What is left of an unread body would be taken for the next request.
      hasUnreadBody = true
      unsafe raw.pointee.keepConnection = 0
    } else if let announced, announced != request.body.count {
      return nil
    }
    return request
  }

  /// Reads BEGIN_REQUEST and PARAMS, and closes `descriptor`.
  private func readHead(from descriptor: CInt) -> Parameters? {
    unsafe raw.pointee.ipcFd = descriptor
    // Makes it read from `ipcFd` instead of accepting a connection,
    unsafe raw.pointee.keepConnection = 1
    // and, should it fail, not wait two seconds for the peer to close.
    unsafe FCGX_Detach(raw)
    // When it fails it has closed the descriptor.
    guard unsafe FCGX_Accept_r(raw) == 0 else { return nil }
    isOpen = true
    defer {
      close(descriptor)
      unsafe FCGX_FreeStream(&raw.pointee.in)
    }
    // PARAMS that end half-way are returned as a request: only the stream's error tells.
    guard unsafe FCGX_GetError(raw.pointee.in) == 0, unsafe raw.pointee.role == CInt(Self.responderRole) else {
      return nil
    }
    return parameters()
  }

  private func parameters() -> Parameters {
    var parameters = Parameters()
    var next = unsafe raw.pointee.envp
    while let entry = unsafe next?.pointee {
      // Safe: `envp` is a NULL-terminated array of NUL-terminated strings, and this is the only user of it.
      let bytes = unsafe UnsafeRawBufferPointer(start: entry, count: strlen(entry)).bindMemory(to: UInt8.self)
      unsafe parameters.add(bytes.span)
      unsafe next = next?.successor()
    }
    return parameters
  }

  /// Sends one STDOUT record of up to ``maximumWriteBytes``. Blocks unless the descriptor is writable.
  func write(_ bytes: borrowing Span<UInt8>) -> Bool {
    precondition(bytes.count <= Self.maximumWriteBytes)
    guard isOpen, bytes.count > 0 else { return isOpen }
    return unsafe bytes.withUnsafeBytes { bytes in
      let chars = unsafe bytes.bindMemory(to: CChar.self)
      return unsafe FCGX_PutStr(chars.baseAddress, CInt(chars.count), raw.pointee.out) == CInt(chars.count)
        && FCGX_FFlush(raw.pointee.out) == 0
    }
  }

  /// Sends the end of the output and END_REQUEST, 24 bytes. False when the peer has gone.
  func finish() -> Bool {
    guard isOpen else { return false }
    let isComplete = unsafe FCGX_FClose(raw.pointee.err) == 0 && FCGX_FClose(raw.pointee.out) == 0
    release()
    return isComplete
  }

  /// Frees what libfcgi holds. The descriptor stays open: it is not libfcgi's.
  func release() {
    guard isOpen else { return }
    isOpen = false
    unsafe raw.pointee.ipcFd = -1
    unsafe FCGX_Free(raw, 0)
  }

  deinit {
    release()
    unsafe raw.deallocate()
  }
}
