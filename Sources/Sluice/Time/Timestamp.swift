import FoundationEssentials
import Glibc

/// Timestamps as in RFC 3339, in UTC, with milliseconds.
enum Timestamp {
  private static let style = Date.ISO8601FormatStyle(includingFractionalSeconds: true)

  static var now: String { Date().formatted(style) }

  /// Seconds since 1970, as in OpenAI's API.
  static var seconds: Int { Int(Date().timeIntervalSince1970) }

  /// Returns milliseconds since 1970.
  static func milliseconds() -> Int {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
  }

  static func text(_ date: Date) -> String { date.formatted(style) }

  /// Returns the timestamp of a file time, such as `st_mtim`.
  static func text(_ time: timespec) -> String {
    Date(timeIntervalSince1970: Double(time.tv_sec) + Double(time.tv_nsec) / 1e9).formatted(style)
  }
}
