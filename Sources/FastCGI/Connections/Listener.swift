import EventLoop
import Glibc

/// A listening socket whose accepted connections are passed to a callback. Belongs to its loop; owns the socket.
package final class Listener {
  private let descriptor: Descriptor
  private let reactor: Reactor
  private let budget: DescriptorBudget
  private let onError: @Sendable (SystemError) -> Void
  private let onShortage: () -> Void
  private let onAccept: (consuming Descriptor) -> Void
  private let isTCP: Bool
  /// Whether the send buffer of each connection must be enlarged; nil before the first connection.
  private var setsSendBuffer: Bool?
  private var watch: Watch?
  private var pauseTimer: Timer?
  /// Whether the current shortage of descriptors has been reported.
  private var hasReportedShortage = false
  /// The number of connections to accept in the next turn.
  private var batch = 1
  private var lastAccept: LoopClock.Instant

  private static let maximumBatch = 64

  /// - Parameters:
  ///   - budget: the budget from which ``ConnectionServer/descriptorsPerConnection`` units are acquired for each
  ///     connection. While none are available, connections wait in the socket's queue.
  ///   - onShortage: called on this loop when no units are available, to have idle connections closed.
  ///   - onError: called when a connection cannot be accepted. The listener continues.
  ///   - onAccept: called on this loop with each connection.
  package init(
    _ descriptor: consuming Descriptor, on reactor: Reactor, budget: DescriptorBudget = DescriptorBudget(),
    onShortage: @escaping () -> Void = {},
    onError: @escaping @Sendable (SystemError) -> Void,
    onAccept: @escaping (consuming Descriptor) -> Void
  ) throws(SystemError) {
    // Other processes may share the socket, so accept must not block when one of them is faster.
    _ = fcntl(descriptor.number, F_SETFL, fcntl(descriptor.number, F_GETFL) | O_NONBLOCK)
    isTCP = Self.setOptions(of: descriptor.number)
    self.descriptor = descriptor
    self.reactor = reactor
    lastAccept = reactor.now
    self.budget = budget
    self.onShortage = onShortage
    self.onError = onError
    self.onAccept = onAccept
    try listen()
  }

  /// Sets the options that accepted TCP connections inherit.
  ///
  /// - Returns: whether it is a TCP socket.
  private static func setOptions(of number: CInt) -> Bool {
    guard disableNagle(of: number) else { return false }
    enlargeSendBuffer(of: number)
    return true
  }

  /// Provides room for ``OutputGate``'s budget. AF_UNIX connections inherit nothing from their listener; the system's
  /// default usually suffices for them.
  private func prepareSendBuffer(of number: CInt) {
    if isTCP { return }
    if setsSendBuffer == nil {
      var size: CInt = 0
      var length = socklen_t(MemoryLayout<CInt>.size)
      unsafe getsockopt(number, SOL_SOCKET, SO_SNDBUF, &size, &length)
      setsSendBuffer = size < OutputGate.minimumUnixBuffer
    }
    if setsSendBuffer == true { Self.enlargeSendBuffer(of: number) }
  }

  private static func enlargeSendBuffer(of number: CInt) {
    // The kernel doubles this value.
    setSocketOption(SO_SNDBUF, of: number, to: OutputGate.minimumTCPBuffer / 2)
  }

  /// Stops accepting. The socket stays open until the listener is deallocated, so that queued connections remain
  /// available to other processes that share it.
  package func stop() {
    watch?.cancel()
    pauseTimer?.cancel()
  }

  deinit { stop() }

  private func listen() throws(SystemError) {
    watch = try reactor.watch(descriptor.number, for: .readable) { [unowned self] _ in acceptReady() }
  }

  private func acceptReady() {
    // More at once while connections arrive in quick succession. A single one is not followed by an attempt to accept
    // another, which would fail. Bounded, so that a flood of connections does not starve the loop's streams.
    batch = reactor.now - lastAccept < .milliseconds(1) ? min(2 * batch, Self.maximumBatch) : 1
    lastAccept = reactor.now
    for _ in 0..<batch {
      guard budget.acquire(ConnectionServer.descriptorsPerConnection) else { return waitForDescriptors() }
      let number = descriptor.accept()
      if number >= 0 {
        hasReportedShortage = false
        prepareSendBuffer(of: number)
        onAccept(Descriptor(owning: number))
        continue
      }
      let code = errno
      budget.release(ConnectionServer.descriptorsPerConnection)
      switch code {
      case EAGAIN: return
      case EINTR, ECONNABORTED: continue
      default:
        onError(SystemError("accept", code: code))
        return pause(for: .milliseconds(100))
      }
    }
  }

  private func waitForDescriptors() {
    if !hasReportedShortage { onError(SystemError("accept", code: EMFILE)) }
    hasReportedShortage = true
    onShortage()
    pause(for: .milliseconds(20))
  }

  /// Pauses accepting. Without descriptors or memory the socket stays readable, so an immediate retry would busy-loop.
  private func pause(for time: Duration) {
    watch?.cancel()
    pauseTimer = reactor.schedule(after: time) { [unowned self] in
      do throws(SystemError) { try listen() } catch {
        onError(error)
        pause(for: .milliseconds(100))
      }
    }
  }
}
