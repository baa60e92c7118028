import CLinux
import EventLoop
import Glibc

/// Accepts connections on a listening socket and hands them on. Belongs to its loop; owns the socket.
public final class Listener {
  private let descriptor: Descriptor
  private let reactor: Reactor
  private let report: @Sendable (SystemError) -> Void
  private let accepted: (consuming Descriptor) -> Void
  private var watch: Watch?
  private var pause: Timer?

  /// - Parameters:
  ///   - report: told when a connection could not be accepted. The listener goes on.
  ///   - accepted: called on this loop with each connection.
  public init(
    _ descriptor: consuming Descriptor, on reactor: Reactor, report: @escaping @Sendable (SystemError) -> Void,
    accepted: @escaping (consuming Descriptor) -> Void
  ) throws(SystemError) {
    // Several processes may accept from one socket: whoever comes too late must not block.
    _ = fcntl(descriptor.number, F_SETFL, fcntl(descriptor.number, F_GETFL) | O_NONBLOCK)
    self.descriptor = descriptor
    self.reactor = reactor
    self.report = report
    self.accepted = accepted
    try listen()
  }

  /// Accepts nothing further. The socket stays open until the listener goes, so its queue is not lost to another
  /// process that listens on it.
  public func stop() {
    watch?.cancel()
    pause?.cancel()
  }

  deinit { stop() }

  private func listen() throws(SystemError) {
    watch = try reactor.watch(descriptor.number, for: .readable) { [unowned self] _ in acceptReady() }
  }

  private func acceptReady() {
    // A bound, so that a flood of connections does not keep the loop from its streams.
    for _ in 0..<64 {
      let number = clinux_accept(descriptor.number)
      if number >= 0 {
        accepted(Descriptor(owning: number))
        continue
      }
      switch errno {
      case EAGAIN: return
      case EINTR, ECONNABORTED: continue
      default: return rest(SystemError("accept"))
      }
    }
  }

  /// Without descriptors or memory the socket stays readable: trying again at once would burn the processor.
  private func rest(_ error: SystemError) {
    report(error)
    watch?.cancel()
    pause = reactor.schedule(after: .milliseconds(100)) { [unowned self] in
      do throws(SystemError) { try listen() } catch { rest(error) }
    }
  }
}
