import EventLoop
import Glibc

/// Completed turns and other user data in plain files, one directory per user. Methods wait for the disk on a thread of
/// the pool and can be called from any loop, except those documented as blocking.
struct Store: Sendable {
  let root: String
  let pool: BlockingPool
  /// Called for a file that a list leaves out because it cannot be read. Called on a thread of the pool.
  var onSkip: @Sendable (SystemError) -> Void = { _ in }

  /// Runs `work` on a thread of the pool. If it fails, retries it up to three times, after 50, 200 and 800 ms. `work`
  /// must be idempotent.
  ///
  /// - Throws: the error of the last attempt.
  func retrying<Success: Sendable>(
    _ work: @escaping @Sendable () throws(SystemError) -> Success
  ) async throws(SystemError) -> Success {
    try await pool.run { () throws(SystemError) in
      var pause: CUnsignedInt = 50_000
      while true {
        do throws(SystemError) { return try work() } catch {
          guard pause < 1_000_000 else { throw error }
          usleep(pause)
          pause *= 4
        }
      }
    }
  }

  /// Returns the user's directory. The location of a file determines its owner.
  func directory(of user: User) -> String { "\(root)/users/\(user.directoryName)" }
}
