import EventLoop
import Glibc

/// A store for completed turns. The built-in store writes files; an embedder can provide another one, such as a
/// database. Reports, onboarding states, limits and replays always remain files under `SLUICE_STATE`.
///
/// Methods must not block. Sluice reads and deletes in the tasks of requests, on event loops. It appends in separate
/// tasks on Swift's global executor, which are not cancelled with their request. A session of another user must be
/// treated as nonexistent.
///
/// When ``append(_:to:of:createsSession:mayExist:)`` throws, the client receives the error `store_failed`. Sluice
/// retains the turn and retries until it is stored; a retry is cancelled after five seconds.
public protocol TurnStore: Sendable {
  /// Appends a turn, and returns once it is durable, because the terminal record then confirms that it is stored.
  ///
  /// - Parameters:
  ///   - turn: the turn to append.
  ///   - session: the id of the session, 1 to 64 characters of `[A-Za-z0-9_-]`.
  ///   - user: the owner of the session.
  ///   - createsSession: whether to create the session if it does not exist. If false, a session that does not exist
  ///     was deleted in the meantime.
  ///   - mayExist: whether an earlier attempt may have appended the turn. If so, a turn with its id must not be
  ///     appended again.
  /// - Returns: false if the session was deleted and the turn was not stored.
  nonisolated(nonsending) func append(
    _ turn: Turn, to session: String, of user: User, createsSession: Bool, mayExist: Bool
  ) async throws -> Bool

  /// Returns whether a user has a session.
  nonisolated(nonsending) func hasSession(_ session: String, of user: User) async throws -> Bool

  /// Returns the newest turns of a session, oldest first: at most ``Page/limit``, and only those before the turn
  /// ``Page/before`` if it is set. Returns nil if the session does not exist.
  nonisolated(nonsending) func turns(of session: String, of user: User, _ page: Page) async throws -> [Turn]?

  /// Returns a user's sessions, the one with the newest turn first: at most ``Page/limit``, starting after the session
  /// ``Page/before`` if it is set. Returns nil if that session does not exist.
  nonisolated(nonsending) func sessions(of user: User, _ page: Page) async throws -> [SessionSummary]?

  /// Deletes a session and its turns. Returns false if it does not exist.
  nonisolated(nonsending) func deleteSession(_ session: String, of user: User) async throws -> Bool
}

/// An entry in a list of sessions.
public struct SessionSummary: Sendable {
  /// The id of the session.
  public let id: String
  /// The completion time of the newest turn (RFC 3339, UTC).
  public let updatedAt: String
  /// The number of turns.
  public let turns: Int

  /// Creates an entry.
  public init(id: String, updatedAt: String, turns: Int) {
    self.id = id
    self.updatedAt = updatedAt
    self.turns = turns
  }
}

extension TurnStore {
  /// Appends a turn, unaffected by the cancellation of the request: after a late stop it must still be certain whether
  /// the turn is stored.
  nonisolated(nonsending) func appendUncancelled(
    _ turn: Turn, to session: String, of user: User, createsSession: Bool, mayExist: Bool
  ) async throws -> Bool {
    // The file store ignores cancellation, so it needs no separate task.
    if let files = self as? Store {
      return try await files.append(turn, to: session, of: user, createsSession: createsSession, mayExist: mayExist)
    }
    return try await Task {
      try await self.append(turn, to: session, of: user, createsSession: createsSession, mayExist: mayExist)
    }.value
  }

  /// Appends a turn, unless the session contains it. Blocks, with an embedder's store for at most five seconds; call it
  /// only on pool threads, and during startup and shutdown.
  func appendBlocking(_ turn: Turn, to session: String, of user: User) throws {
    if let files = self as? Store { return try files.appendIfAbsent(turn, to: session, user: user) }
    let result = BlockingResult()
    let task = Task.detached {
      do {
        result.resume(
          .success(try await self.append(turn, to: session, of: user, createsSession: true, mayExist: true)))
      } catch { result.resume(.failure(error)) }
    }
    guard let outcome = result.wait(seconds: 5) else {
      task.cancel()
      throw SystemError("wait for the store of turns", code: ETIMEDOUT)
    }
    _ = try outcome.get()
  }
}

/// Passes one result from a task to a waiting thread (sem_overview(7)).
@safe
private final class BlockingResult: Sendable {
  // Safe: allocated once and released with the last reference; POSIX semaphores are thread-safe.
  private nonisolated(unsafe) let semaphore: UnsafeMutablePointer<sem_t>
  private let result = Locked<Result<Bool, any Error>?>(nil)

  init() {
    unsafe semaphore = .allocate(capacity: 1)
    unsafe sem_init(semaphore, 0, 0)
  }

  func resume(_ value: Result<Bool, any Error>) {
    result.withLock { $0 = value }
    unsafe sem_post(semaphore)
  }

  /// Returns the result; nil if there is none after `seconds` (sem_timedwait(3)).
  func wait(seconds: Int) -> Result<Bool, any Error>? {
    var end = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &end)
    end.tv_sec += seconds
    while unsafe sem_timedwait(semaphore, &end) != 0 { if errno != EINTR { break } }
    return result.withLock { $0 }
  }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }
}
