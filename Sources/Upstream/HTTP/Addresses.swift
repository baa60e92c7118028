import EventLoop
import Glibc

/// The address of a server's socket (sockaddr(3type)).
struct SocketAddress: Sendable {
  private let storage: sockaddr_storage
  private let length: socklen_t

  @unsafe init(_ address: UnsafePointer<sockaddr>, length: socklen_t) {
    var storage = sockaddr_storage()
    let count = min(Int(length), MemoryLayout<sockaddr_storage>.size)
    unsafe withUnsafeMutableBytes(of: &storage) { bytes in
      unsafe bytes.copyMemory(from: UnsafeRawBufferPointer(start: address, count: count))
    }
    self.storage = storage
    self.length = socklen_t(count)
  }

  var family: CInt { CInt(storage.ss_family) }

  /// Starts a connection without waiting for it (connect(2)).
  ///
  /// - Returns: a non-blocking socket, which is connected once it is writable without a pending error.
  func connect() throws(SystemError) -> Descriptor {
    let type = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let descriptor = try Descriptor(socket(family, type, 0), from: "create a socket")
    disableNagle(of: descriptor.number)
    // Detects, in the end, a server that has disappeared without closing the connection.
    setSocketOption(SO_KEEPALIVE, of: descriptor.number)
    let result = unsafe withUnsafeBytes(of: storage) { bytes -> CInt in
      guard let address = unsafe bytes.baseAddress?.assumingMemoryBound(to: sockaddr.self) else { return -1 }
      return unsafe Glibc.connect(descriptor.number, address, length)
    }
    guard result == 0 || errno == EINPROGRESS else { throw SystemError("connect") }
    return descriptor
  }
}

/// A lookup of a server's addresses (getaddrinfo(3)), which caches them. Belongs to its loop.
final class AddressLookup {
  struct Failure: Error {
    let reason: String
  }

  private let host: String
  private let port: String
  private let reactor: Reactor
  private var cached: [SocketAddress] = []
  private var expiry: LoopClock.Instant
  private var waiting: [ObjectIdentifier: (Result<[SocketAddress], Failure>) -> Void] = [:]
  private var isRunning = false

  /// The thread that resolves names, one at a time in all loops.
  private static let pool = BlockingPool(maximumThreads: 1)
  private static let lifetime: Duration = .seconds(60)

  init(host: String, port: String, on reactor: Reactor) {
    self.host = host
    self.port = port
    self.reactor = reactor
    expiry = reactor.now
    // An address needs no lookup, and cannot change.
    if let addresses = try? Self.resolve(host, port, flags: AI_NUMERICHOST).get() { cached = addresses }
    isNumeric = !cached.isEmpty
  }

  private let isNumeric: Bool

  /// The addresses, if they are known.
  var addresses: [SocketAddress]? {
    !cached.isEmpty && (isNumeric || expiry > reactor.now) ? cached : nil
  }

  /// Looks the addresses up and calls `onResult` in a later turn of the loop, unless `owner` is passed to
  /// ``cancel(_:)`` before.
  func start(for owner: AnyObject, _ onResult: @escaping (Result<[SocketAddress], Failure>) -> Void) {
    waiting[ObjectIdentifier(owner)] = onResult
    guard !isRunning else { return }
    isRunning = true
    reactor.spawn { [self, host, port] in
      let result = await Self.pool.run { Self.resolve(host, port, flags: 0) }
      isRunning = false
      if case .success(let addresses) = result {
        cached = addresses
        expiry = reactor.now + Self.lifetime
      }
      for onResult in exchange(&waiting, with: [:]).values { onResult(result) }
    }
  }

  func cancel(_ owner: AnyObject) { waiting[ObjectIdentifier(owner)] = nil }

  /// Discards the addresses, because no connection to them was possible.
  func invalidate() { expiry = reactor.now }

  private static func resolve(_ host: String, _ port: String, flags: CInt) -> Result<[SocketAddress], Failure> {
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = CInt(SOCK_STREAM.rawValue)
    unsafe hints.ai_flags = flags | AI_NUMERICSERV
    var list: UnsafeMutablePointer<addrinfo>?
    let code = unsafe getaddrinfo(host, port, &hints, &list)
    guard code == 0 else {
      return .failure(Failure(reason: "\(host): \(unsafe String(cString: gai_strerror(code)))"))
    }
    defer { unsafe freeaddrinfo(list) }
    var addresses: [SocketAddress] = []
    var entry = unsafe list
    while let info = unsafe entry {
      if let address = unsafe info.pointee.ai_addr {
        unsafe addresses.append(SocketAddress(address, length: info.pointee.ai_addrlen))
      }
      unsafe entry = info.pointee.ai_next
    }
    return .success(alternating(addresses))
  }

  /// Returns the addresses with the families alternating, in the order of preference otherwise (RFC 8305, 4).
  private static func alternating(_ addresses: [SocketAddress]) -> [SocketAddress] {
    guard let first = addresses.first else { return [] }
    var (same, other) = (
      addresses.filter { $0.family == first.family }[...], addresses.filter { $0.family != first.family }[...]
    )
    var result: [SocketAddress] = []
    while !same.isEmpty || !other.isEmpty {
      if let address = same.popFirst() { result.append(address) }
      if let address = other.popFirst() { result.append(address) }
    }
    return result
  }
}
