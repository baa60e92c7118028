import EventLoop

/// The streams that run now, on all loops: for stopping one, for ending all, for counting.
final class GenerationRegistry: Sendable {
  private struct Entry {
    let user: User
    /// The session that the stream's turn will be stored in.
    let session: String?
    let terminate: @Sendable (Termination) -> Void
    /// Whether its turn is being stored, which nothing stops any more.
    var isStoring = false
    /// Whether its session was deleted: then its turn is not stored.
    var isSessionDeleted = false
    /// Resumed when its turn has been stored.
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  private let entries = Locked<[String: Entry]>([:])

  var count: Int { entries.withLock { $0.count } }

  /// The id and the user of each.
  var running: [(id: String, user: User)] { entries.withLock { $0.map { (id: $0.key, user: $0.value.user) } } }

  /// - Parameter terminate: asks the stream to end; called on any thread.
  func add(_ id: String, of user: User, session: String?, terminate: @escaping @Sendable (Termination) -> Void) {
    entries.withLock { $0[id] = Entry(user: user, session: session, terminate: terminate) }
  }

  func remove(_ id: String) { entries.withLock { _ = $0.removeValue(forKey: id) } }

  /// Stops a stream for its own user. False when that user has no such stream.
  func stop(_ id: String, for user: User) -> Bool {
    guard let entry = entries.withLock({ $0[id] }), entry.user == user else { return false }
    entry.terminate(.stopped)
    return true
  }

  /// Asks every stream to end.
  func terminateAll(_ termination: Termination) {
    for entry in entries.withLock({ Array($0.values) }) { entry.terminate(termination) }
  }

  // MARK: Sessions that are deleted

  /// To be asked before a stream's turn is stored. False when its session was deleted; else ``endStoring(_:)`` is to
  /// follow.
  func beginStoring(_ id: String) -> Bool {
    entries.withLock { entries in
      guard entries[id]?.isSessionDeleted != true else { return false }
      entries[id]?.isStoring = true
      return true
    }
  }

  func endStoring(_ id: String) {
    let waiters: [CheckedContinuation<Void, Never>] = entries.withLock { entries in
      guard var entry = entries[id] else { return [] }
      entry.isStoring = false
      let waiters = exchange(&entry.waiters, with: [])
      entries[id] = entry
      return waiters
    }
    for waiter in waiters { waiter.resume() }
  }

  /// Stops the streams of a session that is being deleted, and waits for those whose turn is being stored already.
  ///
  /// - Returns: whether there was any.
  func endSession(_ session: String, of user: User) async -> Bool {
    let ids: [String] = entries.withLock { entries in
      let ids = entries.filter { $0.value.user == user && $0.value.session == session }.map(\.key)
      for id in ids { entries[id]?.isSessionDeleted = true }
      return ids
    }
    for id in ids {
      entries.withLock { $0[id] }?.terminate(.stopped)
      await withCheckedContinuation { continuation in
        let isWaiting = entries.withLock { entries in
          guard entries[id]?.isStoring == true else { return false }
          entries[id]?.waiters.append(continuation)
          return true
        }
        if !isWaiting { continuation.resume() }
      }
    }
    return !ids.isEmpty
  }
}
