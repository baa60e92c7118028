import EventLoop
import FoundationEssentials

/// What the kernel says of a process (proc(5)).
struct ProcessUsage {
  /// Processor time of all threads, in nanoseconds.
  var cpu: UInt64 = 0
  /// Resident memory, in bytes.
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
  }

  /// The child processes of `pid`: nginx's workers.
  static func children(of pid: Int) -> [Int] {
    read("/proc/\(pid)/task/\(pid)/children").split(separator: " ").compactMap { Int($0) }
  }

  private static func read(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
}
