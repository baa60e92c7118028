import CLinux
import Synchronization

/// Gives freed memory back to the system after many large buffers: prompts, for example.
///
/// glibc keeps what was freed among what is still used, in an arena for each of many threads: after a hundred prompts at
/// once that is several times what their streams need. Use it on any thread.
package final class FreedMemory: Sendable {
  package init() {}

  private let notedBytes = Atomic(0)
  /// What ``notedBytes`` was at the last look.
  private let seenBytes = Atomic(0)

  /// Less than this is not worth the time.
  private static let minimumBytes = 8 << 20

  /// A buffer of `bytes` was built, and will soon be freed.
  package func note(_ bytes: Int) { notedBytes.add(bytes, ordering: .relaxed) }

  /// Whether it is time for ``giveBack()``: there was much, and no more has come since the last look, or very much.
  package func isDue() -> Bool {
    let bytes = notedBytes.load(ordering: .relaxed)
    let seen = seenBytes.exchange(bytes, ordering: .relaxed)
    guard bytes >= Self.minimumBytes, bytes == seen || bytes >= 16 * Self.minimumBytes else { return false }
    notedBytes.subtract(bytes, ordering: .relaxed)
    return true
  }

  /// Does it (malloc_trim(3)). Takes milliseconds.
  package static func returnToSystem() { _ = malloc_trim(0) }
}
