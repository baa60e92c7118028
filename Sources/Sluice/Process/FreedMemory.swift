import CLinux
import Synchronization

/// Gives freed memory back to the system after many large prompts.
///
/// glibc keeps what was freed among what is still used, in an arena for each of many threads: after a hundred prompts at
/// once that is several times what their streams need. Use it on any thread.
final class FreedMemory: Sendable {
  private let promptBytes = Atomic(0)
  /// What ``promptBytes`` was at the last look.
  private let seenBytes = Atomic(0)

  /// Less than this is not worth the time.
  private static let minimumBytes = 8 << 20

  /// A prompt of `bytes` was built, and will soon be freed.
  func note(_ bytes: Int) { promptBytes.add(bytes, ordering: .relaxed) }

  /// Whether it is time for ``giveBack()``: there was much, and no more has come since the last look, or very much.
  func isDue() -> Bool {
    let bytes = promptBytes.load(ordering: .relaxed)
    let seen = seenBytes.exchange(bytes, ordering: .relaxed)
    guard bytes >= Self.minimumBytes, bytes == seen || bytes >= 16 * Self.minimumBytes else { return false }
    promptBytes.subtract(bytes, ordering: .relaxed)
    return true
  }

  /// Does it (malloc_trim(3)). Takes milliseconds.
  static func giveBack() { _ = malloc_trim(0) }
}
