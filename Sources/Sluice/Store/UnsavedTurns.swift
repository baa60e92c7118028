import EventLoop
import Glibc
import JSON

/// Turns that are complete and that the store would not take: kept in memory and tried again until they are stored; at
/// the end of the process, kept in files for the next one. Use it from any thread.
final class UnsavedTurns: Sendable {
  struct Entry: Sendable, Equatable {
    let user: String
    let session: String
    let turn: Turn
    /// The digest of the Idempotency-Key that it came with, and that of the request.
    var key: String?
    var request: String?
    /// The file in which an earlier process has left it.
    var path: String?

    /// As a file keeps it.
    var file: [UInt8] {
      var members: JSON.Members = [
        "v": .integer(1), "user": .string(user), "session": .string(session),
        "line": .string(String(decoding: turn.line(), as: UTF8.self)),
      ]
      members["key"] = key.map(JSON.string)
      members["request"] = request.map(JSON.string)
      return JSON.object(members).encoded + [0x0A]
    }

    /// What the request is answered with when it is sent again.
    var replay: Replay? {
      request.map { request in
        Replay(
          request: request, messageID: turn.id, text: turn.assistant.content,
          finish: Finish(messageID: turn.id, sessionID: session, at: turn.at, completion: turn.completion),
          user: turn.user.content, model: turn.model)
      }
    }

    init(user: String, session: String, turn: Turn, key: String? = nil, request: String? = nil) {
      self.user = user
      self.session = session
      self.turn = turn
      self.key = key
      self.request = request
    }

    /// Nil when the file is none of ours.
    init?(file: [UInt8]) {
      guard let json = try? JSON(parsing: file), let user = json["user"]?.string,
        let session = json["session"]?.string, Identifier.isValid(session), let line = json["line"]?.string,
        let turn = Turn(line: Array(line.utf8))
      else { return nil }
      // A key becomes the name of a file.
      let key = json["key"]?.string.flatMap { Digest(hex: $0)?.hex }
      self.init(user: user, session: session, turn: turn, key: key, request: json["request"]?.string)
    }
  }

  private struct State {
    var entries: [Entry] = []
    var bytes = 0
    /// Whether somebody is at it.
    var isRetrying = false
  }

  private let store: Store
  private let folder: String?
  private let log: Log
  private let state = Locked(State())

  /// What may be kept in memory. What comes on top is lost, and the log says so.
  private static let maximumBytes = 64 << 20

  /// - Parameter folder: where files are kept between two processes; nil keeps none.
  init(_ store: Store, folder: String?, log: Log) {
    self.store = store
    self.folder = folder
    self.log = log
  }

  var count: Int { state.withLock { $0.entries.count } }

  /// - Parameter claim: that of the request's Idempotency-Key: as soon as the turn is stored, the key is answered with it.
  func add(_ turn: Turn, to session: String, of user: User, claim: ReplayClaim? = nil) {
    if add(Entry(user: user.name, session: session, turn: turn, key: claim?.key, request: claim?.request)) {
      log.error("a turn is not stored yet", ["messageId": .string(turn.id), "sessionId": .string(session)])
    } else {
      log.error("a turn is lost: too many wait to be stored", ["messageId": .string(turn.id)])
    }
  }

  private func add(_ entry: Entry) -> Bool {
    state.withLock { state in
      guard state.bytes + Self.size(entry.turn) <= Self.maximumBytes else { return false }
      state.entries.append(entry)
      state.bytes += Self.size(entry.turn)
      return true
    }
  }

  /// Tries to store the turn that a request with this key has left. Blocks.
  ///
  /// - Returns: whether it is stored now; nil when there is none.
  func store(key: String, of user: User) -> Bool? {
    let digest = Digest(of: key).hex
    guard let entry = state.withLock({ $0.entries.first { $0.key == digest && $0.user == user.name } }) else {
      return nil
    }
    return store(entry)
  }

  /// Drops what belongs to a session that was deleted.
  func forget(session: String, of user: User) { remove { $0.session == session && $0.user == user.name } }

  private func remove(where isMeant: (Entry) -> Bool) {
    let removed = state.withLock { state in
      let removed = state.entries.filter(isMeant)
      state.entries.removeAll(where: isMeant)
      for entry in removed { state.bytes -= Self.size(entry.turn) }
      return removed
    }
    for path in removed.compactMap(\.path) { unsafe unlink(path) }
  }

  private static func size(_ turn: Turn) -> Int {
    turn.user.content.utf8.count + turn.assistant.content.utf8.count + 256
  }

  /// Tries once to store each turn that waits. One that fails does not keep the others waiting. Blocks.
  ///
  /// - Returns: how many still wait.
  @discardableResult
  func retry() -> Int {
    guard state.withLock({ !exchange(&$0.isRetrying, with: true) }) else { return count }
    defer { state.withLock { $0.isRetrying = false } }
    for entry in state.withLock({ $0.entries }) { _ = store(entry) }
    return count
  }

  private func store(_ entry: Entry) -> Bool {
    do throws(SystemError) { try save(entry) } catch { return false }
    remove { $0.turn.id == entry.turn.id }
    log.info("a turn that waited is stored", ["messageId": .string(entry.turn.id)])
    return true
  }

  /// Takes up what an earlier process has left, and removes each file once its turn is stored. Blocks.
  func takeUp() {
    guard let folder else { return }
    for name in (try? fileNames(in: folder)) ?? [] where name.hasSuffix(".json") {
      let path = "\(folder)/\(name)"
      guard let content = try? readFile(path), var entry = Entry(file: content) else {
        log.error("a file of unsaved turns cannot be understood and stays where it is", ["path": .string(path)])
        continue
      }
      entry.path = path
      _ = add(entry)
    }
    retry()
  }

  /// Keeps in files what still waits: the process ends. Blocks.
  func writeOut() {
    guard retry() > 0 else { return }
    for entry in state.withLock({ $0.entries }) where entry.path == nil {
      do {
        guard let folder else { throw SystemError("find RUNTIME_DIRECTORY", code: ENOENT) }
        try makeFolders(folder)
        try replaceFile("\(folder)/\(entry.turn.id).json", with: entry.file)
        log.error("a turn that could not be stored waits for the next start", ["messageId": .string(entry.turn.id)])
      } catch {
        log.error(
          "a turn that could not be stored is lost",
          ["messageId": .string(entry.turn.id), "error": .string("\(error)")])
      }
    }
  }

  private func save(_ entry: Entry) throws(SystemError) {
    guard let user = User(entry.user) else { throw SystemError("store the turn of \(entry.user)", code: EINVAL) }
    if let key = entry.key, let replay = entry.replay { try store.keep(replay, under: key, of: user) }
    try store.appendIfAbsent(entry.turn, to: entry.session, user: user)
  }
}
