import EventLoop
import Glibc

/// A locked byte of a file, which its process gives back by ending, however it ends (F_OFD_SETLK, fcntl(2)).
final class SharedSlot: Sendable {
  private let descriptor: Descriptor

  fileprivate init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }
}

/// What users have done lately, for limits that hold across processes and restarts.
extension Store {
  /// Takes one of `limit` slots of all streams, or of a user's. 0 means no limit.
  ///
  /// - Returns: nil when all are taken.
  func takeSlot(of user: User? = nil, limit: Int) async throws(SystemError) -> SharedSlot? {
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
    /// With the time under which it was counted.
    case counted(at: Int)
    /// With the time until there is room for one more.
    case full(Duration)
  }

  /// Counts a message of a user's, if fewer than `limit` were counted in the hour before: `messages`, a line each with
  /// the time in milliseconds.
  ///
  /// - Parameter clock: milliseconds since 1970.
  func countMessage(
    of user: User, limit: Int, clock: @escaping @Sendable () -> Int = Timestamp.milliseconds
  ) async throws(SystemError) -> MessageCount {
    let directory = directory(of: user)
    return try await pool.run { () throws(SystemError) in
      try createDirectories(directory)
      return try Self.changingMessages(directory + "/messages") { times in
        // Asked under the lock: whoever had it before has noted an earlier time.
        let now = clock()
        // A clock that was set back must not lock anybody out.
        times.removeAll { $0 <= now - hour || $0 > now }
        if times.count >= limit { return .full(.milliseconds(times[times.count - limit] + hour - now)) }
        times.append(now)
        return .counted(at: now)
      }
    }
  }

  /// Takes a message that was counted at `time` out of the count.
  func uncountMessage(of user: User, at time: Int) async throws(SystemError) {
    let path = directory(of: user) + "/messages"
    try await pool.run { () throws(SystemError) in
      try Self.changingMessages(path) { times in
        if let index = times.lastIndex(of: time) { times.remove(at: index) }
      }
    }
  }

  /// Changes the times in a file of messages, under its lock (flock(2)). Blocks.
  private static func changingMessages<Result>(
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
