import CSystemd
import EventLoop
import Glibc

/// What systemd is told, where it is there (sd_notify(3)).
enum ServiceManager {
  static func notify(_ state: String) { unsafe sd_notify(0, state) }

  /// How often the watchdog wants a sign of life: half of what it allows. Nil without a watchdog.
  static var watchdogInterval: Duration? {
    var microseconds: UInt64 = 0
    guard unsafe sd_watchdog_enabled(0, &microseconds) > 0 else { return nil }
    return .microseconds(Int64(clamping: microseconds / 2))
  }
}
