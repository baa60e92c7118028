import EventLoop
import Glibc
import Synchronization

/// What a server allows its peers.
package struct ServerLimits: Sendable {
  /// Bytes of a request's body. A longer one is not read; ``Request/isBodyTooLarge`` says so.
  package var maximumBodyBytes = 1 << 20
  /// How long a request may take to become whole.
  package var requestTimeout: Duration = .seconds(10)
  /// Counts the requests that are being read or answered, over all servers that share it.
  package var activity = RequestActivity()
  /// The descriptors that the connections of all servers that share it may use.
  package var descriptors = DescriptorBudget()
  /// How long a peer may take nothing of an answer.
  package var writeTimeout: Duration = .seconds(60)
  /// Told of trouble that is survived, such as running out of descriptors. Called on a loop's thread.
  package var onError: @Sendable (SystemError) -> Void = { _ in }

  package init() {}
}

/// How many requests are being read or answered. Use it on any thread.
package final class RequestActivity: Sendable {
  private let requests = Atomic(0)

  package init() {}

  package var count: Int { requests.load(ordering: .relaxed) }

  func begin() { requests.add(1, ordering: .relaxed) }
  func end() { requests.subtract(1, ordering: .relaxed) }
}

/// The connections of one loop.
package final class ConnectionServer {
  let reactor: Reactor
  let limits: ServerLimits
  /// Where received bytes go first. One for all connections: nothing of it is used in a later turn.
  private var received = [UInt8](repeating: 0, count: 64 * 1024)
  /// Where libfcgi reads requests from. One for all connections, which use it one after the other.
  private var memory: MemoryFile?

  let responder: Responder
  private var connections: [ObjectIdentifier: Connection] = [:]
  private(set) var isDraining = false

  /// The units of ``ServerLimits/descriptors`` that a new connection holds: for itself, and for what its request
  /// connects to.
  package static let descriptorsPerConnection = 2

  /// - Parameter responder: called for every request, on this loop.
  package init(reactor: Reactor, limits: ServerLimits, responder: @escaping Responder) {
    self.reactor = reactor
    self.limits = limits
    self.responder = responder
  }

  /// Prepares libfcgi. Call it once, after ``Signals/block(_:)`` and before the first server: it installs handlers.
  package static func initializeLibrary() { FastCGIRequest.initializeLibrary() }

  /// How many connections are open.
  package var openConnections: Int { connections.count }

  /// Serves an accepted connection from here on, and closes it in the end.
  ///
  /// The caller has acquired ``descriptorsPerConnection`` units of ``ServerLimits/descriptors`` for it.
  package func serve(_ descriptor: consuming Descriptor) {
    // The belt to the braces of OutputGate: a write that blocked after all would end.
    var timeout = timeval(tv_sec: 1, tv_usec: 0)
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
  package func drain() {
    isDraining = true
    for connection in connections.values { connection.drain() }
  }

  func forget(_ connection: Connection) { connections[ObjectIdentifier(connection)] = nil }

  /// Takes up to 64 KiB off a socket, without waiting (recv(2)), and calls `body` with what came.
  ///
  /// - Returns: what recv(2) returned.
  func receive(from number: CInt, _ body: (borrowing Span<UInt8>) -> Void) -> Int {
    let count = unsafe recv(number, &received, received.count, CInt(MSG_DONTWAIT))
    if count > 0 {
      let bytes = received
      body(bytes.span.extracting(0..<count))
    }
    return count
  }

  /// Whether the next record on a socket, of which `start` has been taken already, is ABORT_REQUEST. Takes nothing.
  func isAbortNext(_ number: CInt, after start: [UInt8]) -> Bool {
    var bytes: [UInt8] = [0, 0]
    let count = unsafe recv(number, &bytes, bytes.count, CInt(MSG_PEEK | MSG_DONTWAIT))
    let header = Array(start.prefix(2)) + bytes.prefix(max(0, count))
    return RequestRecords.isAbort(header.span)
  }

  /// Closes kept connections on which nothing has come: others need their descriptors more.
  ///
  /// - Parameter count: how many, at most.
  package func closeIdle(_ count: Int) {
    for connection in connections.values.filter(\.isIdle).prefix(count) { connection.drain() }
  }

  /// Whether something has come on a socket, its end included. Takes nothing.
  func hasBytes(_ number: CInt) -> Bool {
    var byte: UInt8 = 0
    return unsafe recv(number, &byte, 1, CInt(MSG_PEEK | MSG_DONTWAIT)) > 0
  }

  /// Calls `body` with a descriptor from which `bytes` are read, and which `body` closes.
  func reading<Result>(_ bytes: [UInt8], _ body: (CInt) -> Result) throws(SystemError) -> Result {
    if memory == nil { memory = try MemoryFile() }
    guard let memory else { throw SystemError("memfd_create", code: ENOMEM) }
    return body(try memory.open(bytes))
  }
}
