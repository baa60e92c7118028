import EventLoop
import Glibc

/// Where completed turns are kept. The built-in one writes files; an embedder can give another, over a database for
/// example. Reports, the state of onboarding, limits and replays stay files under `SLUICE_STATE`.
///
/// Methods are called from any event loop, in the tasks of requests, and must not block. Another user's session is as
/// one that does not exist. When ``append(_:to:of:createsSession:mayExist:)`` fails, the client is told `store_failed`,
/// and Sluice keeps the turn and appends it again until that succeeds.
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
  /// Appends a turn that may be there already. Blocks: for threads of a pool.
  func appendBlocking(_ turn: Turn, to session: String, of user: User) throws {
    if let files = self as? Store { return try files.appendIfAbsent(turn, to: session, user: user) }
    let waiter = BlockingWaiter()
    Task.detached {
      let result: Result<Bool, any Error>
      do {
        result = .success(
          try await self.append(turn, to: session, of: user, createsSession: true, mayExist: true))
      } catch { result = .failure(error) }
      waiter.resume(result)
    }
    _ = try waiter.wait()
  }
}

/// Where a thread waits for one result of a task (sem_overview(7)).
@safe
private final class BlockingWaiter: Sendable {
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

  func wait() throws -> Bool {
    while unsafe sem_wait(semaphore) != 0 {}
    return try result.withLock { $0 }?.get() ?? false
  }

  deinit {
    unsafe sem_destroy(semaphore)
    unsafe semaphore.deallocate()
  }
}
