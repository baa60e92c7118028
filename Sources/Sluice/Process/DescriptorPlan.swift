import EventLoop

/// How the descriptors that the process may open are shared out, so that every request that is let in finds the ones
/// that it needs until it has been answered and stored.
struct DescriptorPlan: Sendable {
  /// For connections of the web server's and for what their requests connect to.
  let connections: Int
  /// Threads that may have files open at the same time, each of them up to three.
  let fileThreads: Int
  /// Connections to the model's server that each loop keeps open without using them.
  let idleUpstreamConnections: Int

  /// - Parameters:
  ///   - limit: RLIMIT_NOFILE (getrlimit(2)).
  ///   - open: the number of descriptors that are open already.
  init(limit: Int, open: Int, loops: Int) {
    fileThreads = min(256, max(4, limit / 32))
    idleUpstreamConnections = min(64, max(2, limit / 16))
    // Each loop has an epoll set, two event descriptors, memory for requests, and what libcurl keeps. Listening
    // sockets, signals, and files of the configuration come on top.
    let ours = open + loops * (8 + idleUpstreamConnections) + 3 * fileThreads + 8
    connections = max(4, limit - ours)
  }

  /// The plan for this process.
  static func forProcess(loops: Int) -> DescriptorPlan {
    let open = (try? fileNames(in: "/proc/self/fd").count) ?? 16
    return DescriptorPlan(limit: DescriptorBudget.raiseProcessLimit(), open: open, loops: loops)
  }
}
