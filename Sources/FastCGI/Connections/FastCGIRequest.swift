import CFastCGI
import EventLoop
import Glibc

/// libfcgi's state of one request, and all that is done with it: everything of the library is behind this type.
///
/// Used by one thread at a time: by the one that reads the request, from then on by the loop. libfcgi never owns the
/// connection's descriptor: it reads from a duplicate, because it closes what it cannot read from, and writes to a
/// borrowed number that is taken from it before it frees anything.
@safe
final class FastCGIRequest: @unchecked Sendable {
  /// The most payload bytes of one record of libfcgi's output buffer, which is 8,192 bytes with its header.
  static let maximumPieceBytes = 8184

  /// FCGI_RESPONDER (specification 5.1); libfcgi's public header does not have it.
  private static let responderRole = 1

  private let raw: UnsafeMutablePointer<FCGX_Request>
  /// What of the system's, not of the peer's, kept it from reading.
  private(set) var failure: SystemError?
  /// Whether libfcgi holds buffers and streams for this request.
  private var isOpen = false
  /// Whether the peer has sent, or still sends, a body that was not read.
  private(set) var hasUnreadBody = false

  /// Call it once before the first request; it is not thread-safe. Block signals before: it installs handlers.
  static func initializeLibrary() { FCGX_Init() }

  init() {
    unsafe raw = .allocate(capacity: 1)
    unsafe FCGX_InitRequest(raw, -1, 0)
  }

  /// Whether the web server wants to send another request on this connection.
  var keepsConnection: Bool { unsafe raw.pointee.keepConnection != 0 }

  /// Reads one request from `descriptor`. Blocks for as long as the peer keeps it waiting.
  ///
  /// - Returns: nil when what came was not a whole request. Nothing was answered then.
  func read(from descriptor: CInt, maximumBodyBytes: Int) -> Request? {
    let duplicate = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else {
      failure = SystemError("read a request")
      return nil
    }
    unsafe raw.pointee.ipcFd = duplicate
    // Makes it read from `ipcFd` instead of accepting a connection,
    unsafe raw.pointee.keepConnection = 1
    // and, should it fail, not wait two seconds for the peer to close.
    unsafe FCGX_Detach(raw)
    guard unsafe FCGX_Accept_r(raw) == 0 else { return nil }
    isOpen = true
    unsafe raw.pointee.ipcFd = duplicate
    defer {
      close(duplicate)
      unsafe raw.pointee.ipcFd = descriptor
    }
    // A connection that ends half-way through PARAMS is returned as a request: only the stream's error tells.
    guard unsafe FCGX_GetError(raw.pointee.in) == 0, unsafe raw.pointee.role == CInt(Self.responderRole) else {
      return nil
    }
    guard let parameters = parameters() else { return nil }
    var request = Request(parameters: parameters)
    let announced = request.parameters["CONTENT_LENGTH"].flatMap(Int.init)
    if let announced, announced > maximumBodyBytes {
      request.isBodyTooLarge = true
    } else {
      guard readBody(into: &request, limit: maximumBodyBytes) else { return nil }
      if !request.isBodyTooLarge, let announced, announced != request.body.count { return nil }
    }
    // What is left of an unread body would be taken for the next request.
    if request.isBodyTooLarge {
      hasUnreadBody = true
      unsafe raw.pointee.keepConnection = 0
    }
    unsafe FCGX_FreeStream(&raw.pointee.in)
    return request
  }

  /// The most bytes of all parameters: web servers limit a request's head to a small part of it.
  private static let maximumParameterBytes = 1 << 20

  /// Nil when there are too many.
  private func parameters() -> Parameters? {
    var parameters = Parameters()
    var next = unsafe raw.pointee.envp
    while let entry = unsafe next?.pointee {
      // Safe: `envp` is a NULL-terminated array of NUL-terminated strings, and this is the only user of it.
      let bytes = unsafe UnsafeRawBufferPointer(start: entry, count: strlen(entry)).bindMemory(to: UInt8.self)
      guard parameters.byteCount + bytes.count <= Self.maximumParameterBytes else { return nil }
      unsafe parameters.add(bytes.span)
      unsafe next = next?.successor()
    }
    return parameters
  }

  /// False when the connection ended before the body did.
  private func readBody(into request: inout Request, limit: Int) -> Bool {
    while true {
      let count = unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 8192) { buffer -> CInt in
        let count = unsafe buffer.withMemoryRebound(to: CChar.self) { chars in
          unsafe FCGX_GetStr(chars.baseAddress, CInt(chars.count), raw.pointee.in)
        }
        unsafe request.body.append(contentsOf: buffer.prefix(Int(max(0, count))))
        return count
      }
      guard unsafe FCGX_GetError(raw.pointee.in) == 0 else { return false }
      if request.body.count > limit {
        request.body = []
        request.isBodyTooLarge = true
        return true
      }
      if count <= 0 { return true }
    }
  }

  /// Sends one STDOUT record of up to ``maximumPieceBytes``. Blocks unless the descriptor is writable.
  func write(_ piece: borrowing Span<UInt8>) -> Bool {
    precondition(piece.count <= Self.maximumPieceBytes)
    guard isOpen, piece.count > 0 else { return isOpen }
    return unsafe piece.withUnsafeBytes { bytes in
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
