import EventLoop
import Glibc

/// A stream slot, held as a locked byte of a file (F_OFD_SETLK, fcntl(2)). It is released with its last reference, or
/// by the kernel when the process exits or is killed.
final class SharedSlot: Sendable {
  private let descriptor: Descriptor

  fileprivate init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }
}

/// Message timestamps and stream slots, shared by all processes. Timestamps persist across restarts.
extension Store {
  /// Acquires one of `limit` slots for the streams of a user, or of all users if `user` is nil. 0 means no limit.
  ///
  /// - Returns: nil if all slots are in use.
  func acquireSlot(of user: User? = nil, limit: Int) async throws(SystemError) -> SharedSlot? {
    let directory = user.map(directory(of:)) ?? root
    return try await pool.run { () throws(SystemError) in
      try createDirectories(directory)
      let path = directory + "/slots"
      let descriptor = try openOrCreate(path)
      var index = 0
      while limit == 0 || index < limit {
        if descriptor.lockByte(at: index) { return SharedSlot(descriptor) }
        guard errno == EAGAIN || errno == EACCES else { throw SystemError("lock \(path)") }
        index += 1
      }
      return nil
    }
  }

  enum MessageCount: Sendable, Equatable {
    /// The message was counted under this time, in milliseconds since 1970.
    case counted(at: Int)
    /// The limit is reached; the next message is possible after this time.
    case full(Duration)
  }

  /// Counts a message of a user, unless `limit` messages were counted within the last hour. The file `messages`
  /// contains one time per line, in milliseconds since 1970.
  ///
  /// - Parameter clock: returns the current time in milliseconds since 1970.
  func countMessage(
    of user: User, limit: Int, clock: @escaping @Sendable () -> Int = Timestamp.milliseconds
  ) async throws(SystemError) -> MessageCount {
    let directory = directory(of: user)
    return try await pool.run { () throws(SystemError) in
      try createDirectories(directory)
      return try Self.updateMessages(directory + "/messages") { times in
        // Read under the lock, so that times recorded by earlier lock holders do not lie in the future.
        let now = clock()
        // Future times are discarded, because a clock that was set back must not lock users out.
        times.removeAll { $0 <= now - hour || $0 > now }
        if times.count >= limit { return .full(.milliseconds(times[times.count - limit] + hour - now)) }
        times.append(now)
        return .counted(at: now)
      }
    }
  }

  /// Removes a message counted at `time` from the count.
  func removeMessage(of user: User, at time: Int) async throws(SystemError) {
    let path = directory(of: user) + "/messages"
    try await pool.run { () throws(SystemError) in
      try Self.updateMessages(path) { times in
        if let index = times.lastIndex(of: time) { times.remove(at: index) }
      }
    }
  }

  /// Applies `change` to the times in a message file, under its lock (flock(2)). Blocks.
  private static func updateMessages<Result>(
    _ path: String, _ change: (inout [Int]) -> Result
  ) throws(SystemError) -> Result {
    let descriptor = try openOrCreate(path)
    try lock(descriptor, path)
    let before = String(decoding: try readFile(path), as: UTF8.self).split(separator: "\n").compactMap { Int($0) }
    var times = before
    let result = change(&times)
    if times != before {
      let text = Array(times.map { "\($0)\n" }.joined().utf8)
      guard unsafe pwrite(descriptor.number, text, text.count, 0) == text.count,
        ftruncate(descriptor.number, text.count) == 0
      else { throw SystemError("write \(path)") }
    }
    return result
  }
}

private let hour = 3_600_000
