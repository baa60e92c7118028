import CLinux
import EventLoop
import Glibc

/// Timers with the precision of the kernel's (timerfd_create(2)). Those of the event loop have one millisecond, so that
/// a thousand streams would send in bursts. Belongs to its loop.
final class PreciseTimers {
  private let descriptor: Descriptor
  private let clock = LoopClock.continuous
  private let timers = Timers()
  private var watch: Watch?

  init(on reactor: Reactor) throws(SystemError) {
    descriptor = try Descriptor(
      timerfd_create(CLOCK_MONOTONIC, CInt(TFD_CLOEXEC) | CInt(TFD_NONBLOCK)), from: "timerfd_create")
    watch = try reactor.watch(descriptor.number, for: .readable) { [unowned self] _ in fire() }
  }

  var now: LoopClock.Instant { clock.now }

  /// Calls `body` at `time`.
  func schedule(at time: LoopClock.Instant, _ body: @escaping () -> Void) {
    let isFirst = timers.next.map { time < $0 } ?? true
    _ = timers.add(at: time, body)
    if isFirst { arm() }
  }

  private func fire() {
    var count: UInt64 = 0
    unsafe read(descriptor.number, &count, 8)
    timers.fire(at: clock.now)
    arm()
  }

  private func arm() {
    guard let next = timers.next else { return }
    let (seconds, attoseconds) = (next - clock.now).components
    var time = itimerspec()
    // A time of zero would disarm the timer.
    time.it_value =
      seconds < 0 || attoseconds < 0
      ? timespec(tv_sec: 0, tv_nsec: 1)
      : timespec(tv_sec: Int(seconds), tv_nsec: max(1, Int(attoseconds / 1_000_000_000)))
    unsafe timerfd_settime(descriptor.number, 0, &time, nil)
  }
}
