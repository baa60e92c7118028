import EventLoop
import Synchronization

/// The number of redactions by each pattern's name, since the start of the process. Thread-safe.
final class RedactionCounts: Sendable {
  /// The number of redactions of one name.
  final class Count: Sendable {
    private let count = Atomic(0)

    var value: Int { count.load(ordering: .relaxed) }

    func increment() { count.add(1, ordering: .relaxed) }
  }

  private let counts = Locked<[String: Count]>([:])

  /// Returns the count of a name, which patterns of several files can share.
  func count(of name: String) -> Count {
    counts.withLock { counts in
      if let count = counts[name] { return count }
      let count = Count()
      counts[name] = count
      return count
    }
  }

  var all: [(name: String, value: Int)] { counts.withLock { $0.map { ($0.key, $0.value.value) } } }
}
