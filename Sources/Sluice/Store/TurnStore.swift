import EventLoop
import Glibc

/// Where completed turns are kept. The built-in one writes files; an embedder can give another, over a database for
/// example. Reports, the state of onboarding, limits and replays stay files under `SLUICE_STATE`.
///
/// Methods must not block. Reading and deleting are called in the tasks of requests, on event loops; appending is called in
/// tasks of its own, on Swift's global executor, and is not cancelled when its request is. Another user's session is as
/// one that does not exist. When ``append(_:to:of:createsSession:mayExist:)`` fails, the client is told `store_failed`,
/// and Sluice keeps the turn and appends it again until that succeeds; such a further attempt is cancelled after five
/// seconds.
public protocol TurnStore: Sendable {
  /// Appends a turn, and returns when it is durable: the terminal record says so next.
  ///
  /// - Parameters:
  ///   - turn: what to append.
  ///   - session: 1 to 64 of `[A-Za-z0-9_-]`.
  ///   - user: the session's owner.
  ///   - createsSession: whether the turn may be the first one of its session. Otherwise a session that does not exist
  ///     was deleted in the meantime.
  ///   - mayExist: whether an earlier attempt may have appended this turn: one with its id is not appended again then.
  /// - Returns: false when the session was deleted and the turn is not stored.
  nonisolated(nonsending) func append(
    _ turn: Turn, to session: String, of user: User, createsSession: Bool, mayExist: Bool
  ) async throws -> Bool

  /// Returns whether a user has a session.
  nonisolated(nonsending) func hasSession(_ session: String, of user: User) async throws -> Bool

  /// Returns the newest turns of a session, the oldest of them first: at most ``Page/limit``, those before the turn
  /// ``Page/before``. Nil when there is no such session.
  nonisolated(nonsending) func turns(of session: String, of user: User, _ page: Page) async throws -> [Turn]?

  /// Returns a user's sessions, the one with the newest turn first: at most ``Page/limit``, those after the session
  /// ``Page/before``. Nil when that session does not exist.
  nonisolated(nonsending) func sessions(of user: User, _ page: Page) async throws -> [SessionSummary]?

  /// Deletes a session with its turns. Returns false when there was none.
  nonisolated(nonsending) func deleteSession(_ session: String, of user: User) async throws -> Bool
}

/// A session in a list.
public struct SessionSummary: Sendable {
  /// Its id.
  public let id: String
  /// When its newest turn was completed (RFC 3339, UTC).
  public let updatedAt: String
  /// How many turns it has.
  public let turns: Int

  /// Makes one for a list.
  public init(id: String, updatedAt: String, turns: Int) {
    self.id = id
    self.updatedAt = updatedAt
    self.turns = turns
  }
}

extension TurnStore {
  /// Appends a turn for a request, whose cancellation does not reach it: a stop that comes too late must not leave in doubt
  /// what is stored.
  nonisolated(nonsending) func appendUncancelled(
    _ turn: Turn, to session: String, of user: User, createsSession: Bool, mayExist: Bool
  ) async throws -> Bool {
    // The files' does not look at it.
    if let files = self as? Store {
      return try await files.append(turn, to: session, of: user, createsSession: createsSession, mayExist: mayExist)
    }
    return try await Task {
      try await self.append(turn, to: session, of: user, createsSession: createsSession, mayExist: mayExist)
    }.value
  }

  /// Appends a turn that may be there already. Blocks, for a store of an embedder's five seconds at most: for threads of a
  /// pool, and for the start and the end of the process.
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

/// Where a thread waits for one result of a task (sem_overview(7)).
@safe
private final class BlockingResult: Sendable {
  // Safe: allocated once and released with the last reference; POSIX semaphores are for all threads.
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

  /// Nil when there was none in time (sem_timedwait(3)).
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
