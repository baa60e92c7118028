import CLinux
import Glibc

/// The signal masks of threads.
package enum Signals {
  /// Blocks `signals` on the calling thread (pthread_sigmask(3)).
  package static func block(_ signals: [CInt]) {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals { unsafe sigaddset(&set, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  /// Runs `body` with all asynchronous signals blocked on the calling thread. A thread that `body` starts inherits the
  /// mask: signals are delivered to the program's own threads, and a broken pipe is reported as an error of the call
  /// that caused it.
  static func withAllBlocked<Success>(_ body: () -> Success) -> Success {
    var (all, earlier) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    // Signals that the thread's own code raises cannot be deferred.
    for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT] { unsafe sigdelset(&all, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &all, &earlier)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &earlier, nil) }
    return body()
  }
}

/// A watch that calls a handler on a loop for each signal that arrives. When the last watch of a signal is deallocated,
/// the signal's previous action is restored. Several loops can watch the same signal; a process can have up to 16
/// watches.
package final class SignalWatch {
  private let reading: Descriptor
  private let writing: Descriptor
  private let slot: CInt
  private var watch: Watch?

  /// - Throws: `EMFILE` when no descriptor is available, `EAGAIN` when there are already 16 watches.
  package init(
    _ signals: [CInt], on reactor: Reactor, _ handler: @escaping (CInt) -> Void
  ) throws(SystemError) {
    var pipe: [CInt] = [0, 0]
    guard unsafe clinux_pipe(&pipe) == 0 else { throw SystemError("create a pipe for signals") }
    reading = Descriptor(owning: pipe[0])
    writing = Descriptor(owning: pipe[1])
    slot = clinux_watch_signals(pipe[1], signals.reduce(0) { $0 | 1 << UInt64($1) })
    guard slot >= 0 else { throw SystemError("watch signals") }
    let number = pipe[0]
    watch = try reactor.watch(number, for: .readable) { _ in
      var signal: UInt8 = 0
      while unsafe read(number, &signal, 1) == 1 { handler(CInt(signal)) }
    }
  }

  deinit {
    watch?.cancel()
    if slot >= 0 { clinux_unwatch_signals(slot) }
  }
}
