import Synchronization

/// The numbers of requests that opened a connection, and that used one again. Thread-safe.
package final class ConnectionCounts: Sendable {
  private let openings = Atomic(0)
  private let reuses = Atomic(0)

  package init() {}

  package var opened: Int { openings.load(ordering: .relaxed) }
  package var reused: Int { reuses.load(ordering: .relaxed) }

  func count(isReused: Bool) {
    if isReused { reuses.add(1, ordering: .relaxed) } else { openings.add(1, ordering: .relaxed) }
  }
}
