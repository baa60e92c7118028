import EventLoop
import Glibc
import JSON

/// Completed turns and reports that could not be stored. They are retained in memory and retried until they are stored;
/// at shutdown they are saved to files for the next process. Can be used from any thread.
final class UnsavedTurns: Sendable {
  struct Entry: Sendable {
    enum Item: Sendable {
      case turn(Turn, session: String)
      case report(StoredReport)
    }

    let user: String
    let item: Item
    /// The digest of the request's Idempotency-Key, if it has one.
    var key: String?
    /// The response to repeated requests with the key once the item is stored.
    var replay: Replay?
    /// The lock on the key, which no other request can acquire in the meantime.
    var idempotencyLock: IdempotencyLock?
    /// The file in which an earlier process saved the entry.
    var path: String?

    var id: String {
      switch item {
      case .turn(let turn, _): turn.id
      case .report(let report): report.id
      }
    }

    /// The content of the file in which the entry is saved.
    var file: [UInt8] {
      var members: JSON.Members = ["v": .integer(1), "user": .string(user)]
      switch item {
      case .turn(let turn, let session):
        members["session"] = .string(session)
        members["line"] = Self.text(turn.line())
      case .report(let report): members["report"] = Self.text(report.file)
      }
      members["key"] = key.map(JSON.string)
      members["replay"] = replay.map { Self.text($0.file) }
      return JSON.object(members).encoded + [0x0A]
    }

    private static func text(_ bytes: [UInt8]) -> JSON { .string(String(decoding: bytes, as: UTF8.self)) }

    init(user: String, _ item: Item, replay: Replay? = nil, idempotencyLock: IdempotencyLock? = nil) {
      self.user = user
      self.item = item
      self.replay = idempotencyLock == nil ? nil : replay
      self.idempotencyLock = idempotencyLock
      self.key = idempotencyLock?.key
    }

    /// Creates an entry from the content of a file; nil if it has another format.
    init?(file: [UInt8]) {
      guard let json = try? JSON(parsing: file), let user = json["user"]?.string else { return nil }
      if let session = json["session"]?.string, Identifier.isValid(session), let line = json["line"]?.string,
        let turn = Turn(line: Array(line.utf8))
      {
        item = .turn(turn, session: session)
      } else if let text = json["report"]?.string, let report = StoredReport(file: Array(text.utf8)),
        Identifier.isValid(report.id)
      {
        item = .report(report)
      } else {
        return nil
      }
      self.user = user
      // Validated, because the key becomes part of a file name.
      key = json["key"]?.string.flatMap { Digest(hex: $0)?.hex }
      replay = json["replay"]?.string.flatMap { Replay(file: Array($0.utf8)) }
    }
  }

  private struct State {
    var entries: [Entry] = []
    var bytes = 0
    /// Whether a thread is running ``retry(within:)``.
    var isRetrying = false
  }

  private let store: Store
  private let turns: any TurnStore
  private let directory: String?
  private let log: Log
  private let state = Locked(State())
  /// Locked while an entry is being stored, so that no entry is stored after ``discard(session:of:)`` has removed it.
  private let storeLock = Locked(())

  /// The maximum size of the queue in memory. Further entries are lost, and the loss is logged.
  private static let maximumBytes = 64 << 20
  /// The time limit for retries at startup and shutdown, so that a store that hangs does not block either.
  private static let retryLimit: Duration = .seconds(5)

  /// - Parameters:
  ///   - turns: the store for turns; defaults to `store`.
  ///   - directory: the directory for the files that the next process restores; nil disables saving.
  init(_ store: Store, turns: (any TurnStore)? = nil, directory: String?, log: Log) {
    self.store = store
    self.turns = turns ?? store
    self.directory = directory
    self.log = log
  }

  var count: Int { state.withLock { $0.entries.count } }

  /// Queues an item that could not be stored, together with the lock on its Idempotency-Key, if it has one.
  func add(_ item: Entry.Item, of user: User, replay: Replay? = nil, idempotencyLock: IdempotencyLock? = nil) {
    let entry = Entry(user: user.name, item, replay: replay, idempotencyLock: idempotencyLock)
    if add(entry) {
      idempotencyLock?.retainFile()
      log.error("turn not stored; will retry", ["messageId": .string(entry.id)])
    } else {
      log.error("turn lost: retry queue full", ["messageId": .string(entry.id)])
    }
  }

  private func add(_ entry: Entry) -> Bool {
    state.withLock { state in
      guard state.bytes + Self.size(entry) <= Self.maximumBytes else { return false }
      state.entries.append(entry)
      state.bytes += Self.size(entry)
      return true
    }
  }

  /// Returns whether an item of a request with this key is waiting to be stored.
  func contains(key: String, of user: User) -> Bool {
    let digest = Digest(of: key).hex
    return state.withLock { $0.entries.contains { $0.key == digest && $0.user == user.name } }
  }

  /// Tries to store the waiting item of a request with this key. Blocks.
  ///
  /// - Returns: false if the item is still not stored.
  func store(key: String, of user: User) -> Bool {
    let digest = Digest(of: key).hex
    let entry = state.withLock { $0.entries.first { $0.key == digest && $0.user == user.name } }
    return entry.map(store) ?? true
  }

  /// Discards the turns of a deleted session. Blocks while one of them is being stored.
  func discard(session: String, of user: User) {
    let matches: (Entry) -> Bool = { entry in
      guard case .turn(_, session) = entry.item else { return false }
      return entry.user == user.name
    }
    // A turn that is being stored is still listed. Without a match there is no need to wait for `storing`.
    guard state.withLock({ $0.entries.contains(where: matches) }) else { return }
    storeLock.withLock { _ in remove(where: matches) }
  }

  private func remove(where matches: (Entry) -> Bool) {
    let removed = state.withLock { state in
      let removed = state.entries.filter(matches)
      state.entries.removeAll(where: matches)
      for entry in removed { state.bytes -= Self.size(entry) }
      return removed
    }
    for path in removed.compactMap(\.path) { unsafe unlink(path) }
  }

  private static func size(_ entry: Entry) -> Int {
    let own =
      switch entry.item {
      case .turn(let turn, _): turn.user.content.utf8.count + turn.assistant.content.utf8.count
      case .report(let report): report.file.count
      }
    return own + (entry.replay?.text.utf8.count ?? 0) + 256
  }

  /// Tries once to store each waiting item, and continues with the next one after a failure. Blocks.
  ///
  /// - Parameter limit: the time after which no further attempt starts; nil means no limit.
  /// - Returns: the number of items still waiting.
  @discardableResult
  func retry(within limit: Duration? = nil) -> Int {
    let start = ContinuousClock.now
    guard state.withLock({ !exchange(&$0.isRetrying, with: true) }) else { return count }
    defer { state.withLock { $0.isRetrying = false } }
    for entry in state.withLock({ $0.entries }) {
      if let limit, ContinuousClock.now - start >= limit { break }
      _ = store(entry)
    }
    return count
  }

  private func store(_ entry: Entry) -> Bool {
    storeLock.withLock { _ in
      // The entry may have been discarded, or stored by another thread.
      guard state.withLock({ $0.entries.contains { $0.id == entry.id } }) else { return true }
      do { try save(entry) } catch { return false }
      remove { $0.id == entry.id }
      log.info("turn stored after retry", ["messageId": .string(entry.id)])
      return true
    }
  }

  /// Restores the items saved by an earlier process, and removes each file once its item is stored. Blocks.
  func restore() {
    guard let directory else { return }
    for name in (try? fileNames(in: directory)) ?? [] where name.hasSuffix(".json") {
      let path = "\(directory)/\(name)"
      guard let content = try? readFile(path), var entry = Entry(file: content) else {
        log.error("unreadable file of unsaved turns left in place", ["path": .string(path)])
        continue
      }
      entry.path = path
      _ = add(entry)
    }
    retry(within: Self.retryLimit)
  }

  /// Retries the waiting items once more at shutdown, and saves the remaining ones to files. Blocks.
  func persist() {
    guard retry(within: Self.retryLimit) > 0 else { return }
    for entry in state.withLock({ $0.entries }) where entry.path == nil {
      do {
        guard let directory else { throw SystemError("find RUNTIME_DIRECTORY", code: ENOENT) }
        try createDirectories(directory)
        try replaceFile("\(directory)/\(entry.id).json", with: entry.file)
        log.error("turn saved to RUNTIME_DIRECTORY for the next start", ["messageId": .string(entry.id)])
      } catch {
        log.error(
          "turn lost: cannot be saved",
          ["messageId": .string(entry.id), "error": .string("\(error)")])
      }
    }
  }

  private func save(_ entry: Entry) throws {
    guard let user = User(entry.user) else { throw SystemError("store the turn of \(entry.user)", code: EINVAL) }
    if let replay = entry.replay {
      if let idempotencyLock = entry.idempotencyLock {
        try store.write(replay, for: idempotencyLock)
      } else if let key = entry.key {
        try store.write(replay, under: key, of: user)
      }
    }
    switch entry.item {
    case .turn(let turn, let session): try turns.appendBlocking(turn, to: session, of: user)
    case .report(let report): try store.saveBlocking(report, of: user)
    }
  }
}
