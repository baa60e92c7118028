import EventLoop

/// The streams that run now, on all loops: for stopping one, for ending all, for counting.
final class StreamRegistry: Sendable {
  private struct Entry {
    let user: User
    let end: @Sendable (Ending) -> Void
  }

  private let entries = Locked<[String: Entry]>([:])

  var count: Int { entries.withLock { $0.count } }

  /// The id and the user of each.
  var running: [(id: String, user: User)] { entries.withLock { $0.map { (id: $0.key, user: $0.value.user) } } }

  /// - Parameter end: asks the stream to end; called on any thread.
  func add(_ id: String, of user: User, end: @escaping @Sendable (Ending) -> Void) {
    entries.withLock { $0[id] = Entry(user: user, end: end) }
  }

  func remove(_ id: String) { entries.withLock { _ = $0.removeValue(forKey: id) } }

  /// Stops a stream for its own user. False when that user has no such stream.
  func stop(_ id: String, for user: User) -> Bool {
    guard let entry = entries.withLock({ $0[id] }), entry.user == user else { return false }
    entry.end(.stopped)
    return true
  }

  /// Asks every stream to end.
  func endAll(_ ending: Ending) {
    for entry in entries.withLock({ Array($0.values) }) { entry.end(ending) }
  }
}
