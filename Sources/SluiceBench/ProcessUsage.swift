import EventLoop
import FoundationEssentials
import Glibc

/// The resource usage of a process and its descendants, as reported by the kernel (proc(5)).
struct ProcessUsage {
  /// The CPU time of all threads, in nanoseconds.
  var cpu: UInt64 = 0
  /// The resident memory, in bytes.
  var memory = 0
  var descriptors = 0

  init() {}

  init(of pid: Int) {
    let files = FileManager.default
    for task in (try? files.contentsOfDirectory(atPath: "/proc/\(pid)/task")) ?? [] {
      let text = Self.read("/proc/\(pid)/task/\(task)/schedstat")
      cpu += text.split(separator: " ").first.flatMap { UInt64($0) } ?? 0
    }
    for line in Self.read("/proc/\(pid)/status").split(separator: "\n") where line.hasPrefix("VmRSS:") {
      memory = (Int(line.filter(\.isNumber)) ?? 0) * 1024
    }
    descriptors = (try? files.contentsOfDirectory(atPath: "/proc/\(pid)/fd"))?.count ?? 0
    for child in Self.read("/proc/\(pid)/task/\(pid)/children").split(separator: " ").compactMap({ Int($0) }) {
      let usage = ProcessUsage(of: child)
      cpu += usage.cpu
      memory += usage.memory
      descriptors += usage.descriptors
    }
  }

  /// The time for which the machine's processors were not idle, in nanoseconds, and their number.
  static var machine: (busy: UInt64, processors: Int) {
    let lines = read("/proc/stat").split(separator: "\n").filter { $0.hasPrefix("cpu") }
    let fields = (lines.first ?? "").split(separator: " ").dropFirst().compactMap { UInt64($0) }
    guard fields.count >= 8 else { return (0, 1) }
    // user, nice, system, irq, softirq and steal, in hundredths of a second.
    let busy = fields[0] + fields[1] + fields[2] + fields[5] + fields[6] + fields[7]
    return (busy * 10_000_000, max(1, lines.count - 1))
  }

  private static func read(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
}
