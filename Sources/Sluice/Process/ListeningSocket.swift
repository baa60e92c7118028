import CLazyLibraries
import CSystemd
import EventLoop
import FastCGI
import Glibc

/// A socket that a server accepts connections on.
struct ListeningSocket {
  /// The protocol of its connections.
  enum Kind: String {
    case fastCGI = "f"
    case webSocket = "w"
  }

  let number: CInt
  let kind: Kind

  /// Returns systemd's sockets (sd_listen_fds(3)), otherwise the configured ones, otherwise descriptor 0 if it is a
  /// listening socket, which is how spawn-fcgi and mod_fcgid pass it (FastCGI specification 2.2).
  ///
  /// - Throws: ``StartError`` when there is no socket for FastCGI, or a configured one cannot be opened.
  static func all(_ configuration: Configuration) throws(StartError) -> [ListeningSocket] {
    var sockets = try passed()
    func bind(_ address: ListenAddress?, _ kind: Kind) throws(StartError) {
      guard let address, !sockets.contains(where: { $0.kind == kind }) else { return }
      do throws(SystemError) {
        sockets.append(ListeningSocket(number: try Self.bind(address).release(), kind: kind))
      } catch { throw StartError(message: "cannot listen: \(error)") }
    }
    try bind(configuration.listen, .fastCGI)
    if !sockets.contains(where: { $0.kind == .fastCGI }), isListening(STDIN_FILENO) {
      sockets.append(ListeningSocket(number: STDIN_FILENO, kind: .fastCGI))
    }
    try bind(configuration.webSocketListen, .webSocket)
    if sockets.contains(where: { $0.kind == .fastCGI }) { return sockets }
    throw StartError(
      message:
        "no socket to listen on: set SLUICE_LISTEN to unix:PATH or HOST:PORT, or start sluice.socket with systemd")
  }

  /// Returns the sockets that systemd has passed. Those with the name `websocket` are for WebSockets
  /// (FileDescriptorName=, systemd.socket(5)).
  private static func passed() throws(StartError) -> [ListeningSocket] {
    guard unsafe getenv("LISTEN_FDS") != nil else { return [] }
    if let reason = unsafe clazy_load_systemd() {
      throw StartError(message: "libsystemd cannot be loaded: \(unsafe String(cString: reason))")
    }
    let names = unsafe getenv("LISTEN_FDNAMES").map { unsafe String(cString: $0) } ?? ""
    let list = names.split(separator: ":", omittingEmptySubsequences: false)
    return (0..<max(0, sd_listen_fds(1))).map { index in
      let isWebSocket = list.indices.contains(Int(index)) && list[Int(index)] == "websocket"
      return ListeningSocket(number: 3 + index, kind: isWebSocket ? .webSocket : .fastCGI)
    }
  }

  private static func isListening(_ number: CInt) -> Bool {
    var value: CInt = 0
    var length = socklen_t(MemoryLayout<CInt>.size)
    return unsafe getsockopt(number, SOL_SOCKET, SO_ACCEPTCONN, &value, &length) == 0 && value != 0
  }

  /// Opens a listening socket (socket(2), bind(2), listen(2)).
  static func bind(_ address: ListenAddress) throws(SystemError) -> Descriptor {
    switch address {
    case .unix(let path): return try bindUnix(path)
    case .tcp(let host, let port): return try bindTCP(host, port)
    }
  }

  private static func bindUnix(_ path: String) throws(SystemError) -> Descriptor {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { bytes in
      for (index, byte) in path.utf8.enumerated() where index < bytes.count - 1 { unsafe bytes[index] = byte }
    }
    let socket = try Descriptor(
      socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0), from: "create a socket")
    // A socket without a listener remains from a server that was killed.
    let isInUse = unsafe withSockAddr(of: &address) { unsafe connect(socket.number, $0, $1) } == 0
    let reason = errno
    if isInUse { throw SystemError("listen on \(path)", code: EADDRINUSE) }
    var status = stat()
    // Remove only a socket: connect(2) is refused for any other file too.
    if reason == ECONNREFUSED, unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK {
      unsafe unlink(path)
    }
    let fresh = try Descriptor(
      Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0), from: "create a socket")
    // Only the owner and the group have access, because a client of this socket can act as any user.
    let mask = umask(0o117)
    let result = unsafe withSockAddr(of: &address) { unsafe Glibc.bind(fresh.number, $0, $1) }
    umask(mask)
    guard result == 0, listen(fresh.number, SOMAXCONN) == 0 else { throw SystemError("listen on \(path)") }
    return fresh
  }

  private static func bindTCP(_ host: String, _ port: UInt16) throws(SystemError) -> Descriptor {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = AI_PASSIVE
    var list: UnsafeMutablePointer<addrinfo>?
    guard unsafe getaddrinfo(host, String(port), &hints, &list) == 0, let first = unsafe list else {
      throw SystemError("find the address \(host)", code: EADDRNOTAVAIL)
    }
    defer { unsafe freeaddrinfo(first) }
    let info = unsafe first.pointee
    let socket = unsafe try Descriptor(
      Glibc.socket(info.ai_family, info.ai_socktype | CInt(SOCK_CLOEXEC.rawValue), 0), from: "create a socket")
    setSocketOption(SO_REUSEADDR, of: socket.number)
    guard unsafe Glibc.bind(socket.number, info.ai_addr, info.ai_addrlen) == 0, listen(socket.number, SOMAXCONN) == 0
    else { throw SystemError("listen on \(host):\(port)") }
    return socket
  }

  @unsafe private static func withSockAddr(
    of address: inout sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
  ) -> CInt {
    unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }
}
