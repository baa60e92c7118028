import EventLoop
import Glibc
import Synchronization

/// The limits that a server imposes on its peers.
package struct ServerLimits: Sendable {
  /// The maximum size of a request body in bytes. A longer body is not read, and ``Request/isBodyTooLarge`` is set.
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

/// The number of connections, and of requests that are being received or responded to. Can be used on any thread.
package final class RequestActivity: Sendable {
  private let requests = Atomic(0)
  private let connections = Atomic(0)

  package init() {}

  package var count: Int { requests.load(ordering: .relaxed) }

  /// The number of open connections, with or without a request.
  package var openConnections: Int { connections.load(ordering: .relaxed) }

  func opened() { connections.add(1, ordering: .relaxed) }
  func closed() { connections.subtract(1, ordering: .relaxed) }

  func begin() { requests.add(1, ordering: .relaxed) }
  func end() { requests.subtract(1, ordering: .relaxed) }
}

/// The connections of one loop.
package final class ConnectionServer {
  let reactor: Reactor
  let limits: ServerLimits
  /// The file that libfcgi reads requests from. Shared by all connections, which use it one after the other.
  private var memory: MemoryFile?

  let responder: Responder
  private var connections: [ObjectIdentifier: Connection] = [:]
  private(set) var isDraining = false

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

  /// Serves a connection that a ``Listener`` accepted, until it closes.
  ///
  /// The caller must have acquired ``descriptorsPerConnection`` units of ``ServerLimits/descriptors`` for it.
  package func serve(_ descriptor: consuming Descriptor) {
    // Safety net behind OutputGate: if a write blocks nevertheless, it times out.
    var timeout = timeval(tv_sec: 1, tv_usec: 0)
    unsafe setsockopt(
      descriptor.number, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    let connection = Connection(descriptor, server: self)
    connections[ObjectIdentifier(connection)] = connection
    limits.activity.opened()
    connection.open()
  }

  /// Lets each connection serve one more request at most.
  ///
  /// - Parameter closesIdle: whether connections without a request close now. The web server can be sending one at this
  ///   moment, which fails then.
  package func drain(closesIdle: Bool = true) {
    isDraining = true
    if closesIdle { for connection in connections.values { connection.drain() } }
  }

  func remove(_ connection: Connection) {
    if connections.removeValue(forKey: ObjectIdentifier(connection)) != nil { limits.activity.closed() }
  }

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
