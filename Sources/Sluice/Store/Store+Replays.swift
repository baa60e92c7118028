import EventLoop
import Glibc
import JSON

/// Completed responses, stored for one hour under the digest of their `Idempotency-Key`: `replays/DIGEST.json`.
extension Store {
  static let replaySeconds = 3600

  /// Returns the id of the stream that currently holds a key, if any. Does not read a completed response.
  func runningStream(of key: String, _ user: User) async -> String? {
    let path = replay(under: Digest(of: key).hex, of: user)
    return await pool.run {
      guard let descriptor = try? openIfExists(path, O_RDWR), flock(descriptor.number, LOCK_SH | LOCK_NB) != 0 else {
        return nil
      }
      return Self.runningStream(path)
    }
  }

  /// Looks up an Idempotency-Key, and acquires it for `stream` if it is free.
  ///
  /// - Parameters:
  ///   - request: the digest of the request.
  ///   - unit: the budget unit for the descriptor that the lock keeps open.
  func acquireIdempotencyKey(
    of key: String, request: String, by stream: String, _ user: User, unit: DescriptorUnit? = nil
  ) async throws(SystemError) -> IdempotencyState {
    let directory = replays(of: user)
    let digest = Digest(of: key).hex
    let path = replay(under: digest, of: user)
    return try await pool.run { () throws(SystemError) in
      try createDirectories(directory)
      Self.sweep(directory)
      var isLocked = false
      while true {
        // A completed response is immutable, so it can be read without a lock.
        if let replay = Self.complete(path) { return .completed(replay) }
        let descriptor = try openOrCreate(path)
        guard flock(descriptor.number, LOCK_EX | LOCK_NB) == 0 else {
          guard errno == EWOULDBLOCK else { throw SystemError("lock \(path)") }
          // Reported only after a second attempt: the lock may belong to a check or a sweep, which holds it briefly,
          // while the file still names the stream of a killed process.
          if isLocked, let running = Self.runningStream(path) { return .inProgress(stream: running) }
          // The lock holder has not written its stream id yet, or is about to release the lock.
          isLocked = true
          usleep(2000)
          continue
        }
        // Another process may have replaced or removed the file between open and flock.
        guard Self.isSameFile(path, descriptor), Self.complete(path) == nil else { continue }
        let line = JSON.object(["v": .integer(1), "stream": .string(stream)]).encoded
        guard ftruncate(descriptor.number, 0) == 0,
          unsafe pwrite(descriptor.number, line, line.count, 0) == line.count
        else { throw SystemError("write \(path)") }
        return .acquired(IdempotencyLock(path, key: digest, request: request, descriptor, unit))
      }
    }
  }

  /// Stores a completed response, unless one is stored or queued. The lock is released with its last reference.
  func complete(_ idempotencyLock: IdempotencyLock, with replay: Replay) async throws(SystemError) {
    if idempotencyLock.isFileRetained.withLock({ $0 }) { return }
    try await retrying { () throws(SystemError) in try write(replay, for: idempotencyLock) }
  }

  /// Stores a completed response in the file of its lock. Blocks.
  func write(_ replay: Replay, for idempotencyLock: IdempotencyLock) throws(SystemError) {
    try replaceFile(idempotencyLock.path, with: replay.file)
    idempotencyLock.retainFile()
  }

  /// Stores a completed response under the digest of its key. Blocks.
  func write(_ replay: Replay, under key: String, of user: User) throws(SystemError) {
    try createDirectories(replays(of: user))
    try replaceFile(self.replay(under: key, of: user), with: replay.file)
  }

  /// Releases a key, so that the next request with it generates again, unless a completed response is stored or queued.
  func release(_ idempotencyLock: IdempotencyLock) async {
    if idempotencyLock.isFileRetained.withLock({ $0 }) { return }
    // By now the path may refer to the file of another lock.
    await pool.run {
      if Self.isSameFile(idempotencyLock.path, idempotencyLock.descriptor) { unsafe unlink(idempotencyLock.path) }
    }
  }

  /// Removes the completed response of a lock, because its turn must no longer be stored.
  func discard(_ idempotencyLock: IdempotencyLock) async {
    await pool.run {
      if Self.complete(idempotencyLock.path)?.request == idempotencyLock.request { unsafe unlink(idempotencyLock.path) }
    }
  }

  /// Appends the turn of a replay to its session, unless the session contains it. Waits for the session's lock.
  ///
  /// - Parameter key: the digest of the replay's key.
  /// - Returns: false if the replay no longer exists: its session was deleted and must not be created again.
  func finish(
    _ turn: Turn, in session: String, key: String, _ user: User
  ) async throws(SystemError) -> Bool {
    let path = replay(under: key, of: user)
    let (directory, file) = (sessions(of: user), file(of: session, user))
    return try await retrying { () throws(SystemError) in
      // Checked again under the session's lock, because deleting a session removes its replays first.
      let replayExists = { unsafe access(path, F_OK) == 0 }
      guard replayExists() else { return false }
      try createDirectories(directory)
      return try file.append(turn, ifAbsent: true, while: replayExists)
    }
  }

  /// Returns whether the completed response under the digest of a key still exists.
  func hasReplay(under key: String, of user: User) async -> Bool {
    let path = replay(under: key, of: user)
    return await pool.run { unsafe access(path, F_OK) == 0 }
  }

  private func replays(of user: User) -> String { directory(of: user) + "/replays" }

  /// Returns the path of a completed response, by the digest of its key.
  private func replay(under key: String, of user: User) -> String { "\(replays(of: user))/\(key).json" }

  /// Returns the completed response in a file, unless it has expired.
  private static func complete(_ path: String) -> Replay? {
    var status = stat()
    guard unsafe stat(path, &status) == 0, status.st_mtim.tv_sec >= time(nil) - replaySeconds,
      let file = try? readFile(path)
    else { return nil }
    return Replay(file: file)
  }

  /// Returns the stream id that the lock holder has written. Returns nil before that, and after the response is stored.
  private static func runningStream(_ path: String) -> String? {
    guard let file = try? readFile(path) else { return nil }
    return (try? JSON(parsing: file))?["stream"]?.string
  }

  private static func isSameFile(_ path: String, _ descriptor: borrowing Descriptor) -> Bool {
    var (named, opened) = (stat(), stat())
    return unsafe stat(path, &named) == 0 && fstat(descriptor.number, &opened) == 0 && named.st_ino == opened.st_ino
  }

  /// Removes the expired replays of all users. Blocks.
  func removeExpiredReplays() {
    for user in (try? fileNames(in: root + "/users")) ?? [] {
      let directory = "\(root)/users/\(user)/replays"
      if unsafe access(directory, F_OK) == 0 { Self.removeExpired(in: directory) }
    }
  }

  /// Removes the completed responses of a session.
  func removeReplays(of session: String, _ user: User) async {
    let directory = replays(of: user)
    await pool.run {
      for name in (try? fileNames(in: directory)) ?? [] where name != Self.sweepMarker {
        let path = "\(directory)/\(name)"
        if let beginning = try? readFile(path, maximumBytes: 128), Replay.isOf(session: session, beginning) {
          unsafe unlink(path)
        }
      }
    }
  }

  /// Removes expired replays, unless that was done in the last ten minutes. This runs on lookups, because a CGI program has no timer.
  private static func sweep(_ directory: String) {
    let marker = directory + "/" + sweepMarker
    var status = stat()
    if unsafe stat(marker, &status) == 0, status.st_mtim.tv_sec > time(nil) - sweepSeconds { return }
    removeExpired(in: directory)
  }

  private static let sweepMarker = "swept"
  private static let sweepSeconds = 600

  private static func removeExpired(in directory: String) {
    if let marker = try? openOrCreate(directory + "/" + sweepMarker, O_TRUNC) { futimens(marker.number, nil) }
    let oldest = time(nil) - replaySeconds
    for name in (try? fileNames(in: directory)) ?? [] where name != sweepMarker {
      let path = "\(directory)/\(name)"
      var status = stat()
      guard let descriptor = try? Descriptor(unsafe open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW), from: "open \(path)"),
        unsafe fstat(descriptor.number, &status) == 0, status.st_mtim.tv_sec < oldest,
        // A file that is locked is in use, and one that was just replaced has not expired.
        flock(descriptor.number, LOCK_EX | LOCK_NB) == 0, isSameFile(path, descriptor)
      else { continue }
      unsafe unlink(path)
    }
  }
}
