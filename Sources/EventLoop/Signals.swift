import CLinux
import Glibc

/// Signals taken from a descriptor (signalfd(2)) instead of interrupting whoever runs.
public enum Signals {
  /// Keeps `signals` from being delivered to this thread and to every thread that it starts from here on.
  ///
  /// Call it first, before any thread exists and before `FCGX_Init`, which would install handlers of its own.
  public static func block(_ signals: [CInt]) {
    var set = mask(signals)
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  fileprivate static func mask(_ signals: [CInt]) -> sigset_t {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals { unsafe sigaddset(&set, signal) }
    return set
  }
}

/// Calls a handler on a loop for each signal that arrives, while it lives.
public final class SignalWatch {
  private let descriptor: Descriptor
  private var watch: Watch?

  /// - Parameter signals: signals that ``Signals/block(_:)`` has blocked.
  public init(
    _ signals: [CInt], on reactor: Reactor, _ handler: @escaping (CInt) -> Void
  ) throws(SystemError) {
    var set = Signals.mask(signals)
    descriptor = try Descriptor(
      unsafe signalfd(-1, &set, CInt(SFD_CLOEXEC | SFD_NONBLOCK)), from: "signalfd")
    let number = descriptor.number
    watch = try reactor.watch(number, for: .readable) { _ in
      var info = signalfd_siginfo()
      while unsafe read(number, &info, MemoryLayout<signalfd_siginfo>.size) > 0 {
        handler(CInt(info.ssi_signo))
      }
    }
  }

  deinit { watch?.cancel() }
}
