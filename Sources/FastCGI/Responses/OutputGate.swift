import CFastCGI
import EventLoop
import Glibc

/// An estimate of the free send buffer of a blocking descriptor. It prevents writes that would block, with fewer system
/// calls than one per write.
///
/// A socket that polls writable has a large part of its buffer free: three quarters of an AF_UNIX stream's, a third of
/// a TCP connection's. So after one poll(2), a full budget of bytes can be written without polling again.
struct OutputGate {
  /// The minimum size of the send buffer of a TCP connection: a third of it is more than the budget.
  static let minimumTCPBuffer: CInt = 256 * 1024
  /// The minimum size of the send buffer of an AF_UNIX connection: three quarters of it are more than the budget.
  static let minimumUnixBuffer: CInt = 128 * 1024

  /// The number of bytes, by the kernel's accounting, that can be written after the descriptor polled writable.
  private let budget: Int
  private let number: CInt
  private var remaining = 0

  /// - Parameter budget: 0 polls before every write. Use it for pipes, which guarantee only PIPE_BUF bytes (pipe(7)).
  init(_ number: CInt, budget: Int = 64 * 1024) {
    self.number = number
    self.budget = budget
    // The buffer of a new connection is empty.
    remaining = budget
  }

  /// Returns whether a write of up to `bytes` would not block now.
  mutating func permits(_ bytes: Int) -> Bool {
    if remaining >= Self.cost(bytes) { return true }
    var request = pollfd(fd: number, events: Int16(POLLOUT), revents: 0)
    guard unsafe poll(&request, 1, 0) == 1, request.revents & Int16(POLLOUT) != 0 else { return false }
    remaining = max(budget, Self.cost(bytes))
    return true
  }

  /// Deducts a write from the budget.
  mutating func deduct(_ bytes: Int) { remaining = budget == 0 ? 0 : remaining - Self.cost(bytes) }

  /// Returns the maximum that the kernel charges for a write of `bytes`: its buffers are up to twice as large, and each
  /// one has a header.
  private static func cost(_ bytes: Int) -> Int { 2 * bytes + 1024 }
}
