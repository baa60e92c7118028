import EventLoop
import Glibc
import JSON

/// Answers for an hour by their `Idempotency-Key`: `replays/DIGEST.json`.
extension Store {
  static let replaySeconds = 3600

  /// The stream that answers the requests with a key now, if one does. Costs little; a complete answer is not read.
  func runningStream(of key: String, _ user: User) async -> String? {
    let path = replay(under: Digest(of: key).hex, of: user)
    return await pool.run {
      guard let descriptor = try? openIfExists(path, O_RDWR), flock(descriptor.number, LOCK_SH | LOCK_NB) != 0 else {
        return nil
      }
      return Self.runningStream(path)
    }
  }

  /// Looks a key up, and takes it for `stream` when it is free.
  ///
  /// - Parameters:
  ///   - request: the digest of the request.
  ///   - unit: for the descriptor that a idempotencyLock keeps open.
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
        // Once it is complete it changes no more, and any number may read it.
        if let replay = Self.complete(path) { return .completed(replay) }
        let descriptor = try openOrCreate(path)
        guard flock(descriptor.number, LOCK_EX | LOCK_NB) == 0 else {
          guard errno == EWOULDBLOCK else { throw SystemError("lock \(path)") }
          // Not at once: another may only look whether it is locked, and the name be that of a stream that was killed.
          if isLocked, let running = Self.runningStream(path) { return .inProgress(stream: running) }
          // Whoever has it has not said so yet, or is about to be done.
          isLocked = true
          usleep(2000)
          continue
        }
        // Another may have replaced or removed it between the two calls.
        guard Self.isStill(path, descriptor), Self.complete(path) == nil else { continue }
        let line = JSON.object(["v": .integer(1), "stream": .string(stream)]).encoded
        guard ftruncate(descriptor.number, 0) == 0,
          unsafe pwrite(descriptor.number, line, line.count, 0) == line.count
        else { throw SystemError("write \(path)") }
        return .acquired(IdempotencyLock(path, key: digest, request: request, descriptor, unit))
      }
    }
  }

  /// Keeps a complete answer. The idempotencyLock is given back when its last user lets it go.
  func complete(_ idempotencyLock: IdempotencyLock, with replay: Replay) async throws(SystemError) {
    if idempotencyLock.isSettled.withLock({ $0 }) { return }
    try await retrying { () throws(SystemError) in try write(replay, for: idempotencyLock) }
  }

  /// Keeps a complete answer for a idempotencyLock. Blocks.
  func write(_ replay: Replay, for idempotencyLock: IdempotencyLock) throws(SystemError) {
    try replaceFile(idempotencyLock.path, with: replay.file)
    idempotencyLock.settle()
  }

  /// Keeps a complete answer under the digest of its key. Blocks.
  func write(_ replay: Replay, under key: String, of user: User) throws(SystemError) {
    try createDirectories(replays(of: user))
    try replaceFile(self.replay(under: key, of: user), with: replay.file)
  }

  /// Gives a idempotencyLock up: the next request with its key is answered anew, unless a complete answer is kept.
  func release(_ idempotencyLock: IdempotencyLock) async {
    if idempotencyLock.isSettled.withLock({ $0 }) { return }
    // What has its name now may be another's.
    await pool.run {
      if Self.isStill(idempotencyLock.path, idempotencyLock.descriptor) { unsafe unlink(idempotencyLock.path) }
    }
  }

  /// Removes the complete answer to a idempotencyLock: what it answers with is not to be stored any more.
  func discard(_ idempotencyLock: IdempotencyLock) async {
    await pool.run {
      if Self.complete(idempotencyLock.path)?.request == idempotencyLock.request { unsafe unlink(idempotencyLock.path) }
    }
  }

  /// Stores the turn of a complete answer that is kept under the digest of its key, if it is not there. Blocks for the
  /// session's lock.
  ///
  /// - Returns: false when the answer is not kept any more: its session was deleted, and is not begun again.
  func finish(
    _ turn: Turn, in session: String, key: String, _ user: User
  ) async throws(SystemError) -> Bool {
    let path = replay(under: key, of: user)
    let (directory, file) = (sessions(of: user), file(of: session, user))
    return try await retrying { () throws(SystemError) in
      // Asked under the lock once more: deleting a session removes the answers before the session.
      let isKept = { unsafe access(path, F_OK) == 0 }
      guard isKept() else { return false }
      try createDirectories(directory)
      return try file.append(turn, ifAbsent: true, while: isKept)
    }
  }

  /// Whether the complete answer to a key, by its digest, is still there.
  func hasReplay(under key: String, of user: User) async -> Bool {
    let path = replay(under: key, of: user)
    return await pool.run { unsafe access(path, F_OK) == 0 }
  }

  private func replays(of user: User) -> String { directory(of: user) + "/replays" }

  /// The file of a complete answer, by the digest of its key.
  private func replay(under key: String, of user: User) -> String { "\(replays(of: user))/\(key).json" }

  /// The complete answer in a file, as long as it is to be kept.
  private static func complete(_ path: String) -> Replay? {
    var status = stat()
    guard unsafe stat(path, &status) == 0, status.st_mtim.tv_sec >= time(nil) - replaySeconds,
      let file = try? readFile(path)
    else { return nil }
    return Replay(file: file)
  }

  /// The stream that has the lock; nil in the moment before it has said so, and after it has ended.
  private static func runningStream(_ path: String) -> String? {
    guard let file = try? readFile(path) else { return nil }
    return (try? JSON(parsing: file))?["stream"]?.string
  }

  private static func isStill(_ path: String, _ descriptor: borrowing Descriptor) -> Bool {
    var (named, opened) = (stat(), stat())
    return unsafe stat(path, &named) == 0 && fstat(descriptor.number, &opened) == 0 && named.st_ino == opened.st_ino
  }

  /// Removes what is older than an hour, of all users. Blocks.
  func removeExpiredReplays() {
    for user in (try? fileNames(in: root + "/users")) ?? [] {
      let directory = "\(root)/users/\(user)/replays"
      if unsafe access(directory, F_OK) == 0 { Self.removeExpired(in: directory) }
    }
  }

  /// Removes the answers that belong to a session.
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

  /// Removes what is old, if that was not done in the last ten minutes: a CGI program has nobody else to do it.
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
        // One that is being answered, or that was just replaced, is not old.
        flock(descriptor.number, LOCK_EX | LOCK_NB) == 0, isStill(path, descriptor)
      else { continue }
      unsafe unlink(path)
    }
  }
}
