import EventLoop
import Glibc

/// Accepts connections on a listening socket and hands them on. Belongs to its loop; owns the socket.
package final class Listener {
  private let descriptor: Descriptor
  private let reactor: Reactor
  private let budget: DescriptorBudget
  private let onError: @Sendable (SystemError) -> Void
  private let onShortage: () -> Void
  private let onAccept: (consuming Descriptor) -> Void
  private var watch: Watch?
  private var pauseTimer: Timer?
  /// Whether the present shortage of descriptors has been reported.
  private var hasReportedShortage = false

  /// - Parameters:
  ///   - budget: where ``ConnectionServer/descriptorsPerConnection`` units are acquired for each connection. Without
  ///     them connections wait in the socket's queue.
  ///   - onShortage: called on this loop when there are no units: to have idle connections closed.
  ///   - onError: told when a connection could not be onAccept. The listener goes on.
  ///   - onAccept: called on this loop with each connection.
  package init(
    _ descriptor: consuming Descriptor, on reactor: Reactor, budget: DescriptorBudget = DescriptorBudget(),
    onShortage: @escaping () -> Void = {},
    onError: @escaping @Sendable (SystemError) -> Void,
    onAccept: @escaping (consuming Descriptor) -> Void
  ) throws(SystemError) {
    // Several processes may accept from one socket: whoever comes too late must not block.
    _ = fcntl(descriptor.number, F_SETFL, fcntl(descriptor.number, F_GETFL) | O_NONBLOCK)
    self.descriptor = descriptor
    self.reactor = reactor
    self.budget = budget
    self.onShortage = onShortage
    self.onError = onError
    self.onAccept = onAccept
    try listen()
  }

  /// Accepts nothing further. The socket stays open until the listener goes, so its queue is not lost to another
  /// process that listens on it.
  package func stop() {
    watch?.cancel()
    pauseTimer?.cancel()
  }

  deinit { stop() }

  private func listen() throws(SystemError) {
    watch = try reactor.watch(descriptor.number, for: .readable) { [unowned self] _ in acceptReady() }
  }

  private func acceptReady() {
    // A bound, so that a flood of connections does not keep the loop from its streams.
    for _ in 0..<64 {
      guard budget.acquire(ConnectionServer.descriptorsPerConnection) else { return waitForDescriptors() }
      let number = descriptor.accept()
      if number >= 0 {
        onAccept(Descriptor(owning: number))
        continue
      }
      let code = errno
      budget.release(ConnectionServer.descriptorsPerConnection)
      switch code {
      case EAGAIN:
        // Nothing waits any more: the shortage is over.
        hasReportedShortage = false
        return
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

  /// Without descriptors or memory the socket stays readable: trying again at once would burn the processor.
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
