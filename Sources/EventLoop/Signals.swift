import CLinux
import Glibc

/// The signal masks of threads.
package enum Signals {
  /// Keeps `signals` from interrupting the calling thread (pthread_sigmask(3)).
  package static func block(_ signals: [CInt]) {
    var set = sigset_t()
    unsafe sigemptyset(&set)
    for signal in signals { unsafe sigaddset(&set, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
  }

  /// Runs `body` while no signal can interrupt the calling thread. A thread that it starts is never interrupted: signals
  /// are for the program's own threads, and a broken pipe is an error of the call that met it.
  static func withAllBlocked<Success>(_ body: () -> Success) -> Success {
    var (all, earlier) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    // What the thread does itself cannot wait.
    for signal in [SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT] { unsafe sigdelset(&all, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &all, &earlier)
    defer { unsafe pthread_sigmask(SIG_SETMASK, &earlier, nil) }
    return body()
  }
}

/// Calls a handler on a loop for each signal that arrives, while it lives. What was installed for the signals before is
/// there again afterwards. Any number of loops can watch the same signal, up to 16.
package final class SignalWatch {
  private let reading: Descriptor
  private let writing: Descriptor
  private let slot: CInt
  private var watch: Watch?

  /// - Throws: `EMFILE`; `EAGAIN` when there are too many already.
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
