import Glibc

/// The time source of an event loop: the machine's monotonic clock, or one that a test advances manually.
package struct LoopClock: Sendable {
  /// A point in time of this clock, in nanoseconds.
  ///
  /// `ContinuousClock.Instant` is not used: the standard library does not guarantee its layout, so every copy and
  /// comparison is a call that is resolved at run time. Instants are stored for every delta.
  package struct Instant: Comparable, Sendable {
    @usableFromInline let nanoseconds: Int64
    @inlinable init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    @inlinable package static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
    @inlinable package static func == (left: Instant, right: Instant) -> Bool { left.nanoseconds == right.nanoseconds }

    package static func - (end: Instant, start: Instant) -> Duration {
      .nanoseconds(end.nanoseconds - start.nanoseconds)
    }

    /// Returns the instant `duration` after `start`, limited to the range of `Int64` nanoseconds, about 292 years.
    package static func + (start: Instant, duration: Duration) -> Instant {
      let (seconds, attoseconds) = duration.components
      let (wholeSeconds, isTooLong) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
      let (length, isFractionTooLong) = wholeSeconds.addingReportingOverflow(attoseconds / 1_000_000_000)
      let (end, isTooLate) = start.nanoseconds.addingReportingOverflow(length)
      guard isTooLong || isFractionTooLong || isTooLate else { return Instant(nanoseconds: end) }
      return Instant(nanoseconds: duration < .zero ? .min : .max)
    }

    package static func += (instant: inout Instant, duration: Duration) { instant = instant + duration }
  }

  private let read: @Sendable () -> Instant

  /// - Parameter read: returns the current instant. It is called on the loop's thread, at least once per turn.
  package init(read: @escaping @Sendable () -> Instant) { self.read = read }

  package var now: Instant { read() }

  /// The machine's monotonic clock, which includes time in suspend (`CLOCK_BOOTTIME`, clock_gettime(2)).
  package static let continuous = LoopClock {
    var time = timespec()
    unsafe clock_gettime(CLOCK_BOOTTIME, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }
}

extension Duration {
  /// The duration in milliseconds, rounded up, so that a wait of this length is never too short.
  package var roundedUpMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }

  /// The duration in milliseconds, rounded toward zero, for log lines.
  package var roundedDownMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + attoseconds / 1_000_000_000_000_000
  }
}
