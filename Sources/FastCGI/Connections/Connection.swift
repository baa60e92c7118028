import Bytes
import CFastCGI
import EventLoop
import Glibc

/// A callback that responds to a request, on the loop that received it. It must not block, so it starts a task.
package typealias Responder = (Request, consuming ResponseWriter) -> Void

/// An accepted connection from the web server: reads a request, passes it to the responder, and waits for the next one.
///
/// An idle connection uses its descriptor and this object, but no thread. Belongs to its loop.
final class Connection: ResponseTransport, ReadinessHandler {
  private enum State {
    /// No byte of a request has been received.
    case waiting
    /// A request has been received in part.
    case receiving
    case serving
    /// The response was sent before the request was read. The rest is discarded: closing with unread data would reset
    /// the peer.
    case lingering
    case closed

    var isActive: Bool { self == .receiving || self == .serving }
  }

  private let descriptor: Descriptor
  private unowned let server: ConnectionServer
  private let reactor: Reactor
  private var gate: OutputGate
  private let writable = Waiter()
  private var watch: Watch?
  private var deadline: Timer?
  private var state = State.waiting {
    didSet {
      if state.isActive, !oldValue.isActive { server.limits.activity.begin() }
      if !state.isActive, oldValue.isActive { server.limits.activity.end() }
    }
  }
  /// Whether the connection has carried a request before.
  private var isReused = false
  private var records: RequestRecords
  /// Bytes that were received with a request but follow it.
  private var surplus: [UInt8] = []
  private var request = FastCGIRequest()
  /// The acquired units of ``ServerLimits/descriptors``: one for the connection, one for the request's upstream
  /// connection.
  private var acquiredUnits = ConnectionServer.descriptorsPerConnection
  private(set) var isPeerClosed = false
  var onPeerClosed: (() -> Void)?

  private static let quiet: Readiness = .readable | .peerClosed | .edgeTriggered
  /// The maximum silence before the connection releases the descriptor reserved for its request.
  private static let reservationTime: Duration = .seconds(1)
  /// The maximum number of consecutive reads, so that a peer that never stops sending does not starve the loop's
  /// streams.
  private static let maximumReads = 16

  /// - Parameter received: the bytes of a request that another process has read from the connection.
  init(_ descriptor: consuming Descriptor, received: [UInt8], server: ConnectionServer) {
    surplus = received
    self.gate = OutputGate(descriptor.number)
    self.descriptor = descriptor
    self.server = server
    self.reactor = server.reactor
    self.records = RequestRecords(maximumBodyBytes: server.limits.maximumBodyBytes)
  }

  /// Starts watching for requests. Closes at once if epoll rejects the descriptor.
  func open() {
    startDeadline()
    do {
      watch = try reactor.watch(descriptor.number, for: Self.quiet, handler: self)
      if !surplus.isEmpty { continueSoon { [unowned self] in receive() } }
    } catch {
      server.limits.onError(error)
      close()
    }
  }

  // MARK: Receiving

  func handleReadiness(_ ready: Readiness) {
    if ready.contains(anyOf: .peerClosed | .hangup | .error) { return handlePeerClosed() }
    switch state {
    case .waiting, .receiving: receive()
    case .serving:
      if ready.contains(.writable) { writable.wake() }
      if ready.contains(.readable), server.isAbortNext(descriptor.number, after: surplus) { handlePeerClosed() }
    case .lingering: discard()
    case .closed: break
    }
  }

  /// Reads the available bytes, and serves the request as soon as it is complete.
  private func receive() {
    for _ in 0..<Self.maximumReads {
      // What follows the request that is being served waits for its turn.
      guard state == .waiting || state == .receiving else { return }
      if !surplus.isEmpty {
        let bytes = exchange(&surplus, with: [])
        feed(bytes.span)
        continue
      }
      let count = reactor.receiveBuffer.receive(from: descriptor.number) { feed($0) }
      if count < 0 { return errno == EAGAIN ? () : close() }
      if count == 0 { return close() }
    }
    continueSoon { [unowned self] in receive() }
  }

  private func feed(_ bytes: borrowing Span<UInt8>) {
    state = .receiving
    startDeadline()
    let count = records.feed(bytes)
    switch records.status {
    case .incomplete: break
    case .complete, .bodyTooLarge:
      let rest = bytes.extracting(count..<bytes.count)
      if RequestRecords.isAbort(rest) { return close() }
      surplus.append(rest)
      serve()
    case .valuesRequested:
      let result = records.valuesResult
      _ = unsafe send(descriptor.number, result, result.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
      records = RequestRecords(maximumBodyBytes: server.limits.maximumBodyBytes)
      state = .waiting
      surplus.append(bytes.extracting(count..<bytes.count))
    case .parametersTooLarge:
      server.limits.onError(SystemError("read a request's parameters", code: EMSGSIZE))
      close()
    case .aborted, .malformed: close()
    }
  }

  private func serve() {
    deadline?.cancel()
    let read = request.read(records, through: server, respondingTo: descriptor.number)
    records = RequestRecords(maximumBodyBytes: server.limits.maximumBodyBytes)
    if let failure = request.failure { server.limits.onError(failure) }
    guard var read, !isPeerClosed else { return close() }
    state = .serving
    read.lacksDescriptor = !acquireDescriptor()
    server.responder(
      read, ResponseWriter(self, isHeadRequest: read.method == "HEAD", writeTimeout: server.limits.writeTimeout))
  }

  /// Calls `body` in a later turn of the loop, unless the connection has been closed by then.
  private func continueSoon(_ body: @escaping () -> Void) {
    _ = reactor.schedule(after: .zero) { [weak self] in
      if let self, state != .closed { body() }
    }
  }

  private func startDeadline() {
    if deadline?.isPending == true { return }
    let timeout = server.limits.requestTimeout
    // Two timers: a connection that stays silent first releases its second descriptor for use by others, and is closed
    // later.
    let first = min(timeout, Self.reservationTime)
    deadline = reactor.schedule(after: first) { [unowned self] in
      releaseDescriptors(keeping: 1)
      deadline = reactor.schedule(after: timeout - first) { [unowned self] in close() }
    }
  }

  /// Reacquires the second descriptor, which is released while the connection is silent. Returns false if none is
  /// available.
  private func acquireDescriptor() -> Bool {
    if acquiredUnits == ConnectionServer.descriptorsPerConnection { return true }
    if !server.limits.descriptors.acquire(1) {
      server.closeIdle(1)
      guard server.limits.descriptors.acquire(1) else { return false }
    }
    acquiredUnits += 1
    return true
  }

  private func releaseDescriptors(keeping count: Int) {
    guard acquiredUnits > count else { return }
    server.limits.descriptors.release(acquiredUnits - count)
    acquiredUnits = count
  }

  // MARK: Responding

  var maximumWriteBytes: Int { FastCGIRequest.maximumWriteBytes }

  func isWritable(_ bytes: Int) -> Bool { gate.permits(bytes) }

  func waitUntilWritable(for limit: Duration) async {
    try? watch?.change(to: .readable | .peerClosed | .writable | .edgeTriggered)
    await reactor.wait(on: writable, for: limit) { !isPeerClosed && !isWritable(maximumWriteBytes) }
    if state != .closed { try? watch?.change(to: Self.quiet) }
  }

  func write(_ bytes: borrowing Span<UInt8>) throws(WriteError) -> Bool {
    if isPeerClosed { throw .peerClosed }
    guard gate.permits(bytes.count) else { return false }
    guard request.write(bytes) else { throw .peerClosed }
    gate.deduct(bytes.count)
    return true
  }

  func finish(_ bytes: borrowing Span<UInt8>) throws(WriteError) {
    onPeerClosed = nil
    let isComplete = request.finish(bytes)
    if !isComplete, bytes.count > 0 {
      close()
      throw .peerClosed
    }
    isReused = true
    if isComplete, request.hasUnreadBody, !isPeerClosed { return linger() }
    guard isComplete, request.keepsConnection, !isPeerClosed, !server.isDraining else { return close() }
    if let pass = server.pass {
      let rest = exchange(&surplus, with: [])
      if !move({ pass($0, rest) }) { close() }
      return
    }
    request = FastCGIRequest()
    state = .waiting
    releaseDescriptors(keeping: 1)
    // The next request may have arrived during this one; its edge-triggered event has already been consumed.
    receive()
  }

  private func linger() {
    state = .lingering
    shutdown(descriptor.number, CInt(SHUT_WR))
    startDeadline()
    discard()
  }

  private func discard() {
    for _ in 0..<Self.maximumReads {
      let count = reactor.receiveBuffer.receive(from: descriptor.number) { _ in }
      if count < 0, errno == EAGAIN { return }
      if count <= 0 { return close() }
    }
    continueSoon { [unowned self] in discard() }
  }

  func handOver(_ request: Request, _ pass: (CInt, [UInt8]) -> Bool) -> Bool {
    guard state == .serving, !isPeerClosed, surplus.isEmpty, !self.request.hasUnreadBody else { return false }
    let bytes = RequestRecords.encoded(request, id: self.request.id, keepsConnection: self.request.keepsConnection)
    return move { pass($0, bytes) }
  }

  /// Passes the connection to another process if no byte of a request has been received.
  func moveIfWaiting(_ pass: (CInt, [UInt8]) -> Bool) {
    if state == .waiting, surplus.isEmpty, !isPeerClosed { _ = move { pass($0, []) } }
  }

  /// Passes the socket to another process. Returns false if that is not possible.
  private func move(_ pass: (CInt) -> Bool) -> Bool {
    guard pass(descriptor.number) else { return false }
    onPeerClosed = nil
    // Closing the descriptor does not: the other process has another one for the same connection.
    watch?.cancel()
    close()
    return true
  }

  func abort() {
    onPeerClosed = nil
    if !isPeerClosed, state == .serving {
      // Eight zero bytes are not a valid record, so nginx reports a broken response; after a plain close it would report success.
      var zeros: UInt64 = 0
      _ = unsafe send(descriptor.number, &zeros, 8, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    close()
  }

  // MARK: Closing

  private func handlePeerClosed() {
    guard !isPeerClosed else { return }
    isPeerClosed = true
    switch state {
    case .waiting, .receiving, .lingering: close()
    case .closed: break
    case .serving:
      writable.wake()
      onPeerClosed.take()?()
    }
  }

  /// Whether the connection is reused and no byte of its next request has been received.
  var isIdle: Bool { state == .waiting && isReused && surplus.isEmpty && !server.hasBytes(descriptor.number) }

  /// Closes the connection if it is idle. A new connection still serves its first request, which is in flight; an
  /// active one closes after its response.
  func drain() {
    if isIdle { close() }
  }

  private func close() {
    guard state != .closed else { return }
    state = .closed
    deadline?.cancel()
    watch?.cancelBeforeClose()
    request.release()
    releaseDescriptors(keeping: 0)
    // The descriptor closes with the last reference, which the server or a running task holds.
    server.remove(self)
  }
}
