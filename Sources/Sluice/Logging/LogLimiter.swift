import JSON

/// A limit for lines that repeat: of each kind, at most ``maximumLines`` in ``window``. The rest are counted. Lines about
/// the start and the end of streams are never left out.
struct LogLimiter {
  /// Lines that were left out.
  struct Flood {
    let level: Log.Level
    let message: String
    let error: JSON?
    let start: ContinuousClock.Instant
    var lines = 1
    var suppressed = 0

    var fields: JSON.Members {
      ["of": .string(message), "error": error ?? .null, "lines": .integer(suppressed)]
    }
  }

  /// A message, and the error code that it reports.
  private struct Kind: Hashable {
    let message: String
    let error: String?
  }

  static let maximumLines = 100
  static let window: Duration = .seconds(10)
  /// Lines of further kinds are not limited.
  static let maximumKinds = 256

  private var floods: [Kind: Flood] = [:]

  /// The number of kinds that are counted.
  var kinds: Int { floods.count }

  /// Counts a line, and returns whether it is written.
  mutating func admits(
    _ level: Log.Level, _ message: String, _ fields: JSON.Members, at now: ContinuousClock.Instant
  ) -> Bool {
    if message.hasPrefix("stream ") { return true }
    let kind = Kind(message: message, error: fields["error"]?.string)
    guard var flood = floods[kind], now - flood.start < Self.window || flood.suppressed > 0 else {
      if floods.count >= Self.maximumKinds {
        floods = floods.filter { now - $1.start < Self.window || $1.suppressed > 0 }
        guard floods.count < Self.maximumKinds else { return true }
      }
      floods[kind] = Flood(level: level, message: message, error: fields["error"], start: now)
      return true
    }
    flood.lines += 1
    if flood.lines > Self.maximumLines { flood.suppressed += 1 }
    floods[kind] = flood
    return flood.lines <= Self.maximumLines
  }

  /// Returns the floods whose window is over, and forgets them.
  mutating func takeFinished(at now: ContinuousClock.Instant) -> [Flood] {
    if floods.isEmpty { return [] }
    let finished = floods.filter { now - $1.start >= Self.window }
    for kind in finished.keys { floods[kind] = nil }
    return finished.values.filter { $0.suppressed > 0 }
  }

  /// Returns all floods, and forgets them.
  mutating func takeAll() -> [Flood] { exchange(&floods, with: [:]).values.filter { $0.suppressed > 0 } }
}
