import EventLoop
import Glibc
import Synchronization

/// The limits that a server imposes on its peers.
package struct ServerLimits: Sendable {
  /// The maximum size of a request body in bytes. A longer body is not read; see ``Request/bodyIssue``.
  package var maximumBodyBytes = 1 << 20
  /// The time limit for receiving a complete request.
  package var requestTimeout: Duration = .seconds(10)
  /// The counter of active requests, for all servers that share it.
  package var activity = RequestActivity()
  /// The descriptor budget for the connections of all servers that share it.
  package var descriptors = DescriptorBudget()
  /// The maximum time without the peer reading any of a response.
  package var writeTimeout: Duration = .seconds(60)
  /// Called for errors that the server survives, such as running out of descriptors. Called on a loop's thread.
  package var onError: @Sendable (SystemError) -> Void = { _ in }

  package init() {}
}

/// The number of requests that are being received or responded to. Can be used on any thread.
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
  /// The limits for the requests that begin from now on.
  package var limits: ServerLimits
  /// The file that libfcgi reads requests from. Shared by all connections, which use it one after the other.
  private var memory: MemoryFile?

  let responder: Responder
  private var connections: [ObjectIdentifier: Connection] = [:]
  private(set) var isDraining = false
  /// Passes connections to another process, after ``move(_:)``.
  private(set) var pass: (@Sendable (CInt, [UInt8]) -> Bool)?

  /// The units of ``ServerLimits/descriptors`` that a new connection holds: one for itself, one for its request's
  /// upstream connection.
  package static let descriptorsPerConnection = 2

  /// - Parameter responder: called for each request, on this loop.
  package init(reactor: Reactor, limits: ServerLimits, responder: @escaping Responder) {
    self.reactor = reactor
    self.limits = limits
    self.responder = responder
  }

  /// Initializes libfcgi. Call it once, after ``Signals/block(_:)`` and before the first server is created, because it
  /// installs signal handlers.
  package static func initializeLibrary() { FastCGIRequest.initializeLibrary() }

  /// The number of open connections.
  package var openConnections: Int { connections.count }

  /// Serves a connection that a ``Listener`` accepted, or another process passed on, until it closes.
  ///
  /// The caller must have acquired ``descriptorsPerConnection`` units of ``ServerLimits/descriptors`` for it.
  ///
  /// - Parameter received: the bytes of a request that the other process has read from it.
  package func serve(_ descriptor: consuming Descriptor, received: [UInt8] = []) {
    // Safety net behind OutputGate: if a write blocks nevertheless, it times out.
    var timeout = timeval(tv_sec: 1, tv_usec: 0)
    unsafe setsockopt(
      descriptor.number, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    let connection = Connection(descriptor, received: received, server: self)
    connections[ObjectIdentifier(connection)] = connection
    connection.open()
  }

  /// Stops accepting requests on all connections. Idle connections close now, the others after their response.
  package func drain() {
    isDraining = true
    for connection in connections.values { connection.drain() }
  }

  /// Passes each connection to another process: those without a request now, the others after their response. Closing
  /// them instead would fail a request that the web server is just sending on one of them.
  ///
  /// - Parameter pass: passes a socket and the bytes that were read from it, and returns whether that was possible.
  package func move(_ pass: @escaping @Sendable (CInt, [UInt8]) -> Bool) {
    self.pass = pass
    for connection in connections.values { connection.moveIfWaiting(pass) }
  }

  func remove(_ connection: Connection) { connections[ObjectIdentifier(connection)] = nil }

  /// Returns whether the next record on a socket, of which `start` has already been read, is ABORT_REQUEST. Consumes no
  /// bytes.
  func isAbortNext(_ number: CInt, after start: [UInt8]) -> Bool {
    var bytes: [UInt8] = [0, 0]
    let count = unsafe recv(number, &bytes, bytes.count, CInt(MSG_PEEK | MSG_DONTWAIT))
    let header = Array(start.prefix(2)) + bytes.prefix(max(0, count))
    return RequestRecords.isAbort(header.span)
  }

  /// Closes idle connections, to make their descriptors available.
  ///
  /// - Parameter count: the maximum number of connections to close.
  package func closeIdle(_ count: Int) {
    for connection in connections.values.filter(\.isIdle).prefix(count) { connection.drain() }
  }

  /// Returns whether a socket has bytes to read. Consumes none.
  func hasBytes(_ number: CInt) -> Bool {
    var byte: UInt8 = 0
    return unsafe recv(number, &byte, 1, CInt(MSG_PEEK | MSG_DONTWAIT)) > 0
  }

  /// Calls `body` with a descriptor that reads `bytes`. `body` must close it.
  func reading<Result>(_ bytes: [UInt8], _ body: (CInt) -> Result) throws(SystemError) -> Result {
    if memory == nil { memory = try MemoryFile() }
    guard let memory else { throw SystemError("memfd_create", code: ENOMEM) }
    return body(try memory.open(bytes))
  }
}
