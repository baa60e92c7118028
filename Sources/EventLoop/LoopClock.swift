/// Where an event loop reads the time: the machine's monotonic clock, or one that a test steps by hand.
package struct LoopClock: Sendable {
  package typealias Instant = ContinuousClock.Instant

  private let read: @Sendable () -> Instant

  /// - Parameter read: returns the present instant. It is called from the loop's thread, about once a turn.
  package init(read: @escaping @Sendable () -> Instant) { self.read = read }

  package var now: Instant { read() }

  /// The machine's clock, which goes on while the machine sleeps (`CLOCK_BOOTTIME`).
  package static let continuous = LoopClock { ContinuousClock.now }
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
