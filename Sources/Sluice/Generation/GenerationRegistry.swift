import EventLoop

/// The running streams of all loops, for stopping one, terminating all, and counting them. Thread-safe.
final class GenerationRegistry: Sendable {
  private struct Entry {
    let user: User
    /// The session that the stream's turn will be stored in.
    let session: String?
    /// The digest of the request's Idempotency-Key, if it has one.
    let key: String?
    let terminate: @Sendable (Termination) -> Void
    /// Whether the turn is being stored; this can no longer be stopped.
    var isStoring = false
    /// Whether the session was deleted, so that the turn must not be stored.
    var isSessionDeleted = false
    /// The callers to resume when the turn has been stored.
    var waiters: [CheckedContinuation<Void, Never>] = []
  }

  private let entries = Locked<[String: Entry]>([:])

  var count: Int { entries.withLock { $0.count } }

  /// The id and the user of each running stream.
  var running: [(id: String, user: User)] { entries.withLock { $0.map { (id: $0.key, user: $0.value.user) } } }

  /// Adds a running stream.
  ///
  /// - Parameter terminate: requests termination of the stream; called on any thread.
  func add(
    _ id: String, of user: User, session: String?, key: String?,
    terminate: @escaping @Sendable (Termination) -> Void
  ) {
    entries.withLock { $0[id] = Entry(user: user, session: session, key: key, terminate: terminate) }
  }

  func remove(_ id: String) { entries.withLock { _ = $0.removeValue(forKey: id) } }

  /// Stops a stream on behalf of its user. Returns false if that user has no such stream.
  ///
  /// - Parameter id: the stream's id, or the Idempotency-Key of its request.
  func stop(_ id: String, for user: User) -> Bool {
    let found = entries.withLock { entries in
      if let entry = entries[id] { return entry.user == user ? entry : nil }
      let key = Digest(of: id).hex
      return entries.values.first { $0.key == key && $0.user == user }
    }
    found?.terminate(.stopped)
    return found != nil
  }

  /// Stops a stream for the connection that carries it.
  func stop(_ id: String) { entries.withLock { $0[id] }?.terminate(.stopped) }

  /// Requests termination of every stream, or of those of some users.
  func terminateAll(_ termination: Termination, where isAffected: (User) -> Bool = { _ in true }) {
    for entry in entries.withLock({ Array($0.values) }) where isAffected(entry.user) { entry.terminate(termination) }
  }

  // MARK: Session deletion

  /// Marks a stream's turn as being stored; call it before storing the turn.
  ///
  /// - Returns: whether the turn can be stored; ``endStoring(_:)`` must follow then. False when the session was
  ///   deleted.
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

  /// Stops the streams of a session that is being deleted, and waits for those whose turn is already being stored.
  ///
  /// - Returns: whether there was any such stream.
  func stopStreams(ofSession session: String, of user: User) async -> Bool {
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
