import EventLoop
import Glibc

/// Sessions: `sessions/SID.jsonl`, one line per turn.
extension Store: TurnStore {
  /// Returns the turns of a page, oldest first; nil if the user has no such session.
  func turns(of session: String, of user: User, _ page: Page) async throws(SystemError) -> [Turn]? {
    let file = file(of: session, user)
    return try await pool.run { () throws(SystemError) in try file.turns(page) }
  }

  /// Returns whether the user has such a session.
  func hasSession(_ session: String, of user: User) async -> Bool {
    let file = file(of: session, user)
    return await pool.run { unsafe access(file.path, F_OK) == 0 }
  }

  func append(
    _ turn: Turn, to session: String, of user: User, createsSession creates: Bool, mayExist: Bool
  ) async throws(SystemError) -> Bool {
    let (directory, file) = (sessions(of: user), file(of: session, user))
    return try await retrying { () throws(SystemError) in
      if creates { try createDirectories(directory) }
      return try file.append(turn, creates: creates, ifAbsent: mayExist)
    }
  }

  /// Appends a turn, unless the session contains it. Blocks.
  func appendIfAbsent(_ turn: Turn, to session: String, user: User) throws(SystemError) {
    try createDirectories(sessions(of: user))
    try file(of: session, user).append(turn, ifAbsent: true)
  }

  /// Returns the user's sessions, the one with the newest turn first, starting after the session ``Page/before``.
  /// Returns nil if that session no longer exists.
  func sessions(of user: User, _ page: Page) async throws(SystemError) -> [SessionSummary]? {
    let directory = sessions(of: user)
    return try await pool.run { () throws(SystemError) in
      var found: [(id: String, time: timespec)] = []
      for name in try fileNames(in: directory) where name.hasSuffix(".jsonl") {
        var status = stat()
        // Skips a session that was deleted after the directory was read.
        guard unsafe stat("\(directory)/\(name)", &status) == 0 else { continue }
        found.append((String(name.dropLast(6)), status.st_mtim))
      }
      found.sort {
        ($0.time.tv_sec, $0.time.tv_nsec, $0.id) > ($1.time.tv_sec, $1.time.tv_nsec, $1.id)
      }
      if let before = page.before {
        guard let index = found.firstIndex(where: { $0.id == before }) else { return nil }
        found.removeSubrange(...index)
      }
      var sessions: [SessionSummary] = []
      for (id, time) in found {
        if sessions.count == page.limit { break }
        // One file, restored with a wrong owner for example, must not hide all others.
        do throws(SystemError) {
          let turns = try SessionFile(path: "\(directory)/\(id).jsonl").count()
          sessions.append(SessionSummary(id: id, updatedAt: Timestamp.text(time), turns: turns))
        } catch { onSkip(error) }
      }
      return sessions
    }
  }

  func deleteSession(_ session: String, of user: User) async throws(SystemError) -> Bool {
    let file = file(of: session, user)
    return try await pool.run { () throws(SystemError) in try file.remove() }
  }

  func sessions(of user: User) -> String { directory(of: user) + "/sessions" }

  func file(of session: String, _ user: User) -> SessionFile {
    SessionFile(path: "\(sessions(of: user))/\(session).jsonl")
  }
}
