/// Where an event loop reads the time: the machine's monotonic clock, or one that a test steps by hand.
public struct LoopClock: Sendable {
  public typealias Instant = ContinuousClock.Instant

  private let read: @Sendable () -> Instant

  /// - Parameter read: returns the present instant. It is called from the loop's thread, about once a turn.
  public init(read: @escaping @Sendable () -> Instant) { self.read = read }

  public var now: Instant { read() }

  /// The machine's clock, which goes on while the machine sleeps (`CLOCK_BOOTTIME`).
  public static let continuous = LoopClock { ContinuousClock.now }
}

extension Duration {
  /// Whole milliseconds, rounded up, so that a wait of this length is never too short.
  public var roundedUpMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + (attoseconds + 999_999_999_999_999) / 1_000_000_000_000_000
  }

  /// Whole milliseconds, rounded down: what a log line shows.
  public var wholeMilliseconds: Int64 {
    let (seconds, attoseconds) = components
    return seconds * 1000 + attoseconds / 1_000_000_000_000_000
  }
}
