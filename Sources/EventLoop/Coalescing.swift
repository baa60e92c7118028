/// The decision whether a loop sleeps before it waits for events, so that one wake-up handles several of them.
///
/// When thousands of events per second arrive one by one, waking up costs more than handling them. After a sleep of
/// 300 µs, several have arrived. A value that performs no I/O.
struct Coalescing {
  /// The length of the sleep.
  static let sleepNanoseconds = 300_000
  /// The minimum number of watched descriptors, so that a few short requests are never delayed.
  static let minimumDescriptors = 64
  /// The number of turns over which rates are measured.
  private static let window = 64
  /// The maximum duration of a window for sleeping to start: 5,000 turns per second.
  private static let maximumStartNanoseconds: Int64 = 64 * 200_000
  /// The maximum duration of a window for sleeping to continue: twice the sleep per turn. Longer turns wait for events.
  private static let maximumWindowNanoseconds: Int64 = 64 * 600_000
  /// The time without an event after which sleeping ends at once, so that a request after a busy time is not delayed.
  private static let maximumGapNanoseconds: Int64 = 2_000_000
  /// The number of events per turn that make a turn worth its wake-up without sleeping.
  private static let manyEvents = 4

  /// Whether the loop should sleep before it waits.
  private(set) var isActive = false
  private var turns = 0
  private var events = 0
  private var windowStart: LoopClock.Instant
  private var lastTurn: LoopClock.Instant

  init(at now: LoopClock.Instant) {
    windowStart = now
    lastTurn = now
  }

  /// Records a turn that waited for events.
  mutating func record(events count: Int, descriptors: Int, at now: LoopClock.Instant) {
    turns += 1
    events += count
    let gap = now.nanoseconds - lastTurn.nanoseconds
    lastTurn = now
    if descriptors < Self.minimumDescriptors || gap > Self.maximumGapNanoseconds { isActive = false }
    guard turns == Self.window else { return }
    let duration = now.nanoseconds - windowStart.nanoseconds
    if isActive {
      isActive = duration < Self.maximumWindowNanoseconds
    } else {
      isActive =
        descriptors >= Self.minimumDescriptors && events < Self.manyEvents * turns
        && duration < Self.maximumStartNanoseconds
    }
    (turns, events, windowStart) = (0, 0, now)
  }
}
