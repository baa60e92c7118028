import EventLoop

/// The allocation of the descriptors that the process can open. It ensures that every admitted request has the
/// descriptors that it needs until its response is complete and stored.
struct DescriptorPlan: Sendable {
  /// Descriptors for connections from the web server, their upstream connections, and Idempotency-Key locks.
  let connections: Int
  /// Threads that can have files open at the same time, up to three each.
  let fileThreads: Int
  /// Idle upstream connections that each loop keeps open.
  let idleUpstreamConnections: Int

  /// Creates a plan.
  ///
  /// - Parameters:
  ///   - limit: RLIMIT_NOFILE (getrlimit(2)).
  ///   - open: the number of descriptors that are already open.
  init(limit: Int, open: Int, loops: Int) {
    fileThreads = min(256, max(4, limit / 32))
    idleUpstreamConnections = min(64, max(2, limit / 16))
    // Each loop has an epoll set, two event descriptors, memory files for requests, and libcurl's descriptors.
    // Listening sockets, signals, and configuration files need some more.
    let ours = open + loops * (8 + idleUpstreamConnections) + 3 * fileThreads + 8
    connections = max(4, limit - ours)
  }

  /// Returns the plan for this process. Raises its descriptor limit as far as allowed.
  static func forProcess(loops: Int) -> DescriptorPlan {
    let open = (try? fileNames(in: "/proc/self/fd").count) ?? 16
    return DescriptorPlan(limit: DescriptorBudget.raiseProcessLimit(), open: open, loops: loops)
  }
}
