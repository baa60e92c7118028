import CFastCGI
import CLinux
import EventLoop
import Glibc

/// What a program does with a request, on the loop that received it. It must not block: it starts a task.
public typealias Responder = (Request, consuming ResponseWriter) -> Void

/// One accepted connection of the web server's: it waits for a request, has it answered, and waits for the next.
///
/// An idle connection costs its descriptor and this object, no thread. Belongs to its loop.
final class Connection: ResponseTransport {
  private enum State {
    /// Until a request has arrived whole.
    case waiting
    /// A thread reads a request that did not arrive at once.
    case reading
    case serving
    /// Answered without having been read whole: what still comes is dropped, or it would destroy the answer.
    case lingering
    case closed

    var isActive: Bool { self == .reading || self == .serving }
  }

  private let descriptor: Descriptor
  private unowned let server: ConnectionServer
  private let reactor: Reactor
  private let gate: OutputGate
  private let writable = Waiter()
  private var watch: Watch?
  private var deadline: Timer?
  private var progress: Timer?
  private var state = State.waiting {
    didSet {
      if state.isActive, !oldValue.isActive { server.limits.activity.began() }
      if !state.isActive, oldValue.isActive { server.limits.activity.ended() }
    }
  }
  /// Whether it has carried a request before.
  private var isKept = false
  private var request = FastCGIRequest()
  private(set) var isPeerGone = false
  var peerWent: (() -> Void)?

  private static let quiet: Readiness = [.readable, .peerClosed, .edgeTriggered]

  init(_ descriptor: consuming Descriptor, server: ConnectionServer) {
    self.gate = OutputGate(descriptor.number)
    self.descriptor = descriptor
    self.server = server
    self.reactor = server.reactor
  }

  /// Begins to wait. Closes at once when epoll will not take the descriptor.
  func open() {
    startDeadline()
    rewatch()
  }

  private func rewatch() {
    do {
      watch = try reactor.watch(descriptor.number, for: Self.quiet) { [unowned self] in self.became($0) }
    } catch {
      server.limits.report(error)
      close()
    }
  }

  // MARK: Receiving

  private func became(_ ready: Readiness) {
    if !ready.isDisjoint(with: [.peerClosed, .hangup, .error]) {
      peerClosed()
    } else if state == .waiting {
      receive()
    } else if state == .lingering {
      if server.discard(descriptor.number) <= 0, errno != EAGAIN { close() }
    } else if state == .serving {
      if ready.contains(.writable) { writable.wake() }
      if ready.contains(.readable), isAborted() { peerClosed() }
    }
  }

  /// Looks at what has arrived, without taking it, and reads the request as soon as it is whole.
  private func receive() {
    let count = server.peek(descriptor.number)
    if count < 0 { return errno == EAGAIN ? () : close() }
    if count == 0 { return close() }
    switch server.scanPeeked(count) {
    case .whole: serve(request.read(from: descriptor.number, maximumBodyBytes: server.limits.maximumBodyBytes))
    case .incomplete where count < server.maximumPeekedBytes:
      startDeadline()
      watchProgress()
    case .incomplete, .unusual: readOnPool()
    case .abort, .junk: close()
    }
  }

  /// A peer that sends in many small pieces fills its socket's buffer long before 64 KiB: what is only looked at is
  /// not taken from there. A thread takes it, if no more has come for a while.
  private func watchProgress() {
    progress?.cancel()
    progress = reactor.schedule(after: .seconds(1)) { [unowned self] in
      if state == .waiting { readOnPool() }
    }
  }

  /// For a request that is larger than the socket's buffer, or of an unusual form. A peer that stops sending is given
  /// up after the receive timeout of its socket; one that trickles, when the deadline shuts the socket down.
  private func readOnPool() {
    state = .reading
    watch?.cancel()
    startDeadline()
    let request = request
    let number = descriptor.number
    let limit = server.limits.maximumBodyBytes
    reactor.spawn {
      let read = await self.server.pool.run { request.read(from: number, maximumBodyBytes: limit) }
      guard self.state == .reading else { return }
      self.rewatch()
      self.serve(read)
    }
  }

  private func serve(_ read: Request?) {
    guard state != .closed else { return }
    deadline?.cancel()
    progress?.cancel()
    if let failure = request.failure { server.limits.report(failure) }
    guard let read, !isPeerGone else { return close() }
    state = .serving
    server.responder(
      read, ResponseWriter(self, isHeadRequest: read.method == "HEAD", writeTimeout: server.limits.writeTimeout))
  }

  private func isAborted() -> Bool {
    let count = server.peek(descriptor.number)
    return count > 0 && server.scanPeeked(count) == .abort
  }

  private func startDeadline() {
    if deadline?.isPending == true { return }
    deadline = reactor.schedule(after: server.limits.requestTimeout) { [unowned self] in
      // A thread that reads from it sees the end of the connection and comes back.
      if state == .reading { shutdown(descriptor.number, CInt(SHUT_RDWR)) } else { close() }
    }
  }

  // MARK: Answering

  var maximumPieceBytes: Int { FastCGIRequest.maximumPieceBytes }

  func isWritable(_ bytes: Int) -> Bool { gate.permits(bytes) }

  func waitUntilWritable(for limit: Duration) async {
    try? watch?.change(to: [.readable, .peerClosed, .writable, .edgeTriggered])
    await reactor.wait(on: writable, for: limit) { !isPeerGone && !gate.permits(maximumPieceBytes) }
    if state != .closed { try? watch?.change(to: Self.quiet) }
  }

  func write(_ piece: borrowing Span<UInt8>) throws(WriteError) {
    guard !isPeerGone, request.write(piece) else { throw .peerGone }
    gate.wrote(piece.count)
  }

  func finish() {
    peerWent = nil
    let isComplete = request.finish()
    isKept = true
    if isComplete, request.hasUnreadBody, !isPeerGone { return linger() }
    guard isComplete, request.keepsConnection, !isPeerGone, !server.isDraining else { return close() }
    request = FastCGIRequest()
    state = .waiting
    // The next request may have come while this one was answered: its edge is past.
    receive()
  }

  private func linger() {
    state = .lingering
    shutdown(descriptor.number, CInt(SHUT_WR))
    startDeadline()
    became(.readable)
  }

  func abort() {
    peerWent = nil
    if !isPeerGone, state == .serving {
      // Not a record: nginx gives its client a broken response for it, where a plain close would look complete.
      var zeros: UInt64 = 0
      _ = unsafe send(descriptor.number, &zeros, 8, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    close()
  }

  // MARK: Ending

  private func peerClosed() {
    guard !isPeerGone else { return }
    isPeerGone = true
    switch state {
    case .waiting, .lingering: close()
    case .reading, .closed: break
    case .serving:
      writable.wake()
      peerWent.take()?()
    }
  }

  /// Ends a connection that was kept and on which nothing has come. A fresh one has a request on its way, and one
  /// that is being served ends with its answer.
  func drain() {
    if state == .waiting, isKept, server.peek(descriptor.number) <= 0 { close() }
  }

  private func close() {
    guard state != .closed else { return }
    state = .closed
    deadline?.cancel()
    progress?.cancel()
    watch?.cancel()
    request.release()
    // The descriptor closes with the last reference: that of the server, or of a task that still runs.
    server.forget(self)
  }
}
