import EventLoop
import FoundationEssentials

/// The resource usage of a process, as reported by the kernel (proc(5)).
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
  }

  /// Returns the child processes of `pid`, such as nginx's workers.
  static func children(of pid: Int) -> [Int] {
    read("/proc/\(pid)/task/\(pid)/children").split(separator: " ").compactMap { Int($0) }
  }

  private static func read(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
}
