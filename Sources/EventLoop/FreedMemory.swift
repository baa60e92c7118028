import CLinux
import Synchronization

/// A counter of large freed buffers, such as prompts, that decides when to return freed memory to the system.
///
/// glibc retains freed memory between live allocations, in separate arenas of many threads. After a hundred concurrent
/// prompts, this is several times the memory that their streams need. Can be used on any thread.
package final class FreedMemory: Sendable {
  package init() {}

  private let recordedBytes = Atomic(0)
  /// The value of ``recordedBytes`` at the previous check.
  private let previousBytes = Atomic(0)

  /// The minimum number of noted bytes that justifies the time for ``returnToSystem()``.
  private static let minimumBytes = 8 << 20

  /// Notes that a buffer of `bytes` bytes was created and will soon be freed.
  package func record(_ bytes: Int) { recordedBytes.add(bytes, ordering: .relaxed) }

  /// Returns whether ``returnToSystem()`` is due: at least 8 MiB were noted, and either none since the previous check
  /// or at least 128 MiB in total. If it is due, subtracts these bytes from the counter.
  package func isDue() -> Bool {
    let bytes = recordedBytes.load(ordering: .relaxed)
    let seen = previousBytes.exchange(bytes, ordering: .relaxed)
    guard bytes >= Self.minimumBytes, bytes == seen || bytes >= 16 * Self.minimumBytes else { return false }
    recordedBytes.subtract(bytes, ordering: .relaxed)
    return true
  }

  /// Returns freed memory to the system (malloc_trim(3)). Takes milliseconds.
  package static func returnToSystem() { _ = malloc_trim(0) }
}
