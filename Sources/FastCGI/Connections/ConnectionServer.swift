import CLinux
import EventLoop
import Glibc
import Synchronization

/// What a server allows its peers.
public struct ServerLimits: Sendable {
  /// Bytes of a request's body. A longer one is not read; ``Request/isBodyTooLarge`` says so.
  public var maximumBodyBytes = 1 << 20
  /// How long a request may take to become whole.
  public var requestTimeout: Duration = .seconds(10)
  /// Counts the requests that are being read or answered, over all servers that share it.
  public var activity = RequestActivity()
  /// How long a peer may take nothing of an answer.
  public var writeTimeout: Duration = .seconds(60)
  /// Told of trouble that is survived, such as running out of descriptors. Called on a loop's thread.
  public var report: @Sendable (SystemError) -> Void = { _ in }

  public init() {}
}

/// How many requests are being read or answered. Use it on any thread.
public final class RequestActivity: Sendable {
  private let requests = Atomic(0)

  public init() {}

  public var count: Int { requests.load(ordering: .relaxed) }

  func began() { requests.add(1, ordering: .relaxed) }
  func ended() { requests.subtract(1, ordering: .relaxed) }
}

/// The connections of one loop.
public final class ConnectionServer {
  let reactor: Reactor
  let limits: ServerLimits
  let pool: BlockingPool
  /// Where arrived bytes are looked at. One for all connections: nothing of it is used in a later turn.
  private var peeked = [UInt8](repeating: 0, count: 64 * 1024)

  let responder: Responder
  private var connections: [ObjectIdentifier: Connection] = [:]
  private(set) var isDraining = false

  /// - Parameter responder: called for every request, on this loop.
  public init(
    reactor: Reactor, limits: ServerLimits, pool: BlockingPool = requestPool, responder: @escaping Responder
  ) {
    self.reactor = reactor
    self.limits = limits
    self.pool = pool
    self.responder = responder
  }

  /// Threads for requests that do not arrive at once. Their own, so that peers that stall hold up no file.
  public static let requestPool = BlockingPool(maximumThreads: 64)

  /// Prepares libfcgi. Call it once, after ``Signals/block(_:)`` and before the first server: it installs handlers.
  public static func initializeLibrary() { FastCGIRequest.initializeLibrary() }

  /// How many connections are open.
  public var openConnections: Int { connections.count }

  /// Serves an accepted connection from here on, and closes it in the end.
  public func take(_ descriptor: consuming Descriptor) {
    var timeout = timeval(tv_sec: 5, tv_usec: 0)
    unsafe setsockopt(
      descriptor.number, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    // The belt to the braces of OutputGate: a write that blocked after all would end.
    timeout.tv_sec = 1
    unsafe setsockopt(
      descriptor.number, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    // Room for OutputGate's budget, whatever the system's defaults are; the kernel doubles the figure.
    var size: CInt = 128 * 1024
    unsafe setsockopt(descriptor.number, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<CInt>.size))
    // No waiting for more to send. On a socket that is not TCP this fails, and does not matter.
    var yes: CInt = 1
    unsafe setsockopt(
      descriptor.number, CInt(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<CInt>.size))
    let connection = Connection(descriptor, server: self)
    connections[ObjectIdentifier(connection)] = connection
    connection.open()
  }

  /// Takes no further request on any connection. Idle ones are closed, the others after their answer.
  public func drain() {
    isDraining = true
    for connection in connections.values { connection.drain() }
  }

  func forget(_ connection: Connection) { connections[ObjectIdentifier(connection)] = nil }

  var maximumPeekedBytes: Int { peeked.count }

  /// Copies up to ``maximumPeekedBytes`` of what has arrived without taking it from the socket (recv(2)).
  func peek(_ number: CInt) -> Int {
    unsafe recv(number, &peeked, peeked.count, CInt(MSG_PEEK | MSG_DONTWAIT))
  }

  /// Takes what has arrived and drops it.
  func discard(_ number: CInt) -> Int {
    var count = 1
    while count > 0 { count = unsafe recv(number, &peeked, peeked.count, CInt(MSG_DONTWAIT)) }
    return count
  }

  /// What the first `count` bytes are that ``peek(_:)`` copied.
  func scanPeeked(_ count: Int) -> RequestScan {
    let bytes = peeked
    return RequestScan(bytes.span.extracting(0..<count))
  }
}
