import Glibc

/// Where an event loop reads the time: the machine's monotonic clock, or one that a test steps by hand.
package struct LoopClock: Sendable {
  /// A point in time of this clock, in nanoseconds.
  ///
  /// Not `ContinuousClock.Instant`: the standard library does not say how that is laid out, so every copy and comparison is
  /// a call that is looked up at run time. Instants are noted for every delta.
  package struct Instant: Comparable, Sendable {
    @usableFromInline let nanoseconds: Int64
    @inlinable init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    @inlinable package static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
    @inlinable package static func == (left: Instant, right: Instant) -> Bool { left.nanoseconds == right.nanoseconds }

    package static func - (end: Instant, start: Instant) -> Duration {
      .nanoseconds(end.nanoseconds - start.nanoseconds)
    }

    /// The distant future, 292 years away, for a duration that no instant can be so far away.
    package static func + (start: Instant, duration: Duration) -> Instant {
      let (seconds, attoseconds) = duration.components
      let (whole, isTooLong) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
      let (length, isFractionTooLong) = whole.addingReportingOverflow(attoseconds / 1_000_000_000)
      let (end, isTooLate) = start.nanoseconds.addingReportingOverflow(length)
      guard isTooLong || isFractionTooLong || isTooLate else { return Instant(nanoseconds: end) }
      return Instant(nanoseconds: duration < .zero ? .min : .max)
    }

    package static func += (instant: inout Instant, duration: Duration) { instant = instant + duration }
  }

  private let read: @Sendable () -> Instant

  /// - Parameter read: returns the present instant. It is called from the loop's thread, about once a turn.
  package init(read: @escaping @Sendable () -> Instant) { self.read = read }

  package var now: Instant { read() }

  /// The machine's clock, which goes on while the machine sleeps (`CLOCK_BOOTTIME`, clock_gettime(2)).
  package static let continuous = LoopClock {
    var time = timespec()
    unsafe clock_gettime(CLOCK_BOOTTIME, &time)
    return Instant(nanoseconds: Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec))
  }
}

extension Duration {
  /// Whole milliseconds, rounded up, so that a wait of this length is never too short.
  package var roundedUpMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }

  /// Whole milliseconds, rounded down: what a log line shows.
  package var wholeMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + attoseconds / 1_000_000_000_000_000
  }
}
