import CSystemd
import EventLoop
import Glibc

/// Notifications to systemd (sd_notify(3)), without effect if it did not start the process.
enum ServiceManager {
  static func notify(_ state: String) {
    guard unsafe getenv("NOTIFY_SOCKET") != nil else { return }
    unsafe sd_notify(0, state)
  }

  /// The interval between watchdog notifications, half of the timeout. Nil without a watchdog.
  static var watchdogInterval: Duration? {
    guard unsafe getenv("WATCHDOG_USEC") != nil else { return nil }
    var microseconds: UInt64 = 0
    guard unsafe sd_watchdog_enabled(0, &microseconds) > 0 else { return nil }
    return .microseconds(Int64(clamping: microseconds / 2))
  }
}
