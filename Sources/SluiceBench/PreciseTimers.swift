import CLinux
import EventLoop
import Glibc

/// Timers with the precision of the kernel's (timerfd_create(2)). Those of the event loop have one millisecond, so that
/// a thousand streams would send in bursts. Belongs to its loop.
final class PreciseTimers {
  private let descriptor: Descriptor
  private var watch: Watch?
  /// The pending calls, as a binary heap by time.
  private var heap: [(at: UInt64, call: () -> Void)] = []

  init(on reactor: Reactor) throws(SystemError) {
    descriptor = try Descriptor(
      timerfd_create(CLOCK_MONOTONIC, CInt(TFD_CLOEXEC) | CInt(TFD_NONBLOCK)), from: "timerfd_create")
    watch = try reactor.watch(descriptor.number, for: .readable) { [unowned self] _ in fire() }
  }

  /// Calls `body` at a time of ``nanoseconds()``.
  func schedule(at time: UInt64, _ body: @escaping () -> Void) {
    heap.append((time, body))
    var index = heap.count - 1
    while index > 0, heap[(index - 1) / 2].at > heap[index].at {
      heap.swapAt(index, (index - 1) / 2)
      index = (index - 1) / 2
    }
    if index == 0 { arm() }
  }

  private func fire() {
    var count: UInt64 = 0
    unsafe read(descriptor.number, &count, 8)
    while let first = heap.first, first.at <= nanoseconds() {
      removeFirst()
      first.call()
    }
    arm()
  }

  private func removeFirst() {
    heap.swapAt(0, heap.count - 1)
    heap.removeLast()
    var index = 0
    while true {
      var least = index
      for child in [2 * index + 1, 2 * index + 2] where child < heap.count && heap[child].at < heap[least].at {
        least = child
      }
      guard least != index else { return }
      heap.swapAt(index, least)
      index = least
    }
  }

  private func arm() {
    guard let first = heap.first else { return }
    var time = itimerspec()
    // A time of zero would disarm the timer.
    time.it_value = timespec(tv_sec: Int(first.at / 1_000_000_000), tv_nsec: max(1, Int(first.at % 1_000_000_000)))
    unsafe timerfd_settime(descriptor.number, CInt(TFD_TIMER_ABSTIME), &time, nil)
  }
}
