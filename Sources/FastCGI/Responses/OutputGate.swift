import CFastCGI
import EventLoop
import Glibc

/// Tells when a blocking descriptor takes a write without blocking, at less than a system call a write.
///
/// A socket that polls writable has a good part of its buffer free: three quarters of an AF_UNIX stream's, a third
/// of a TCP connection's. So after one poll(2) a whole budget of bytes can be written unasked.
final class OutputGate {
  /// Bytes, by the kernel's way of counting them, that may be written after the descriptor polled writable. Less
  /// than a third of the smallest send buffer used here (256 KiB).
  private let budget: Int
  private let number: CInt
  private var remaining = 0

  /// - Parameter budget: 0 asks before every write: for pipes, which promise only PIPE_BUF bytes (pipe(7)).
  init(_ number: CInt, budget: Int = 64 * 1024) {
    self.number = number
    self.budget = budget
  }

  /// Whether a piece of up to `bytes` can be written now.
  func permits(_ bytes: Int) -> Bool {
    if remaining >= Self.cost(bytes) { return true }
    var request = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
    guard unsafe poll(&request, 1, 0) == 1, request.revents & Int16(POLLOUT) != 0 else { return false }
    remaining = max(budget, Self.cost(bytes))
    return true
  }

  /// Counts a write.
  func wrote(_ bytes: Int) { remaining = budget == 0 ? 0 : remaining - Self.cost(bytes) }

  /// What the kernel charges for a write of `bytes`, at most: its buffers are up to twice as large, and each has
  /// a head.
  private static func cost(_ bytes: Int) -> Int { 2 * bytes + 1024 }
}
