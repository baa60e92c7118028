import EventLoop
import Glibc

/// Finished messages in plain files, a directory a user. Methods wait for the disk on a thread of the pool, and may be
/// called from any loop.
struct Store: Sendable {
  let root: String
  let pool: BlockingPool

  /// Does `work` on a thread of the pool, trying again with growing pauses when that fails. It must be such that doing
  /// it again does it once.
  ///
  /// - Throws: the last failure.
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

  /// The user's own directory: ownership is where a file lies.
  func directory(of user: User) -> String { "\(root)/users/\(user.directoryName)" }
}
