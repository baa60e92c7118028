import EventLoop
import Glibc
import JSON
import Upstream

/// A complete answer to a request with an `Idempotency-Key`, kept to be given again.
///
/// It is kept before what it answers with is stored, and says all that is stored: a process that is killed between the
/// two, or a store that takes only the one, leaves what the next request with the key finishes.
struct Replay: Sendable, Equatable {
  /// The digest of the request that it answers.
  let request: String
  let messageID: String
  var text: String
  var finish: GenerationResult
  /// What the user said and the model that was asked, where a turn is stored.
  var user: String?
  var model: String?
  /// The title, where a report is stored.
  var title: String?

  static func == (a: Replay, b: Replay) -> Bool { a.file == b.file }

  /// The turn that is to be in the session's file.
  var turn: Turn? {
    guard let user, finish.sessionID != nil, let at = finish.completedAt else { return nil }
    return Turn(id: messageID, at: at, user: user, assistant: text, completion: finish.completion, model: model)
  }

  /// The report that is to be a file.
  var report: StoredReport? {
    guard let id = finish.extraMembers["reportId"]?.string, let report = finish.extraMembers["report"],
      let at = finish.completedAt
    else {
      return nil
    }
    return StoredReport(id: id, title: title, at: at, report: report)
  }

  var file: [UInt8] {
    var members: JSON.Members = ["v": .integer(1)]
    // First, for finding a session's answers by the beginnings of their files.
    members["sessionId"] = finish.sessionID.map(JSON.string)
    members["request"] = .string(request)
    members["messageId"] = .string(messageID)
    members["text"] = .string(text)
    members["finishReason"] = .string(finish.completion.finishReason.rawValue)
    members["storedAs"] = finish.messageID.map(JSON.string)
    members["at"] = finish.completedAt.map(JSON.string)
    members["user"] = user.map(JSON.string)
    members["model"] = model.map(JSON.string)
    members["title"] = title.map(JSON.string)
    members["usage"] = finish.completion.usage?.json
    members["more"] = .object(finish.extraMembers)
    return JSON.object(members).encoded + [0x0A]
  }

  init(
    request: String, messageID: String, text: String, finish: GenerationResult, user: String? = nil,
    model: String? = nil,
    title: String? = nil
  ) {
    self.request = request
    self.messageID = messageID
    self.text = text
    self.finish = finish
    self.user = user
    self.model = model
    self.title = title
  }

  /// Whether the file that begins so holds an answer of a session.
  static func isOf(session: String, _ beginning: [UInt8]) -> Bool {
    beginning.starts(with: Array(#"{"v":1,"sessionId":"\#(session)","#.utf8))
  }

  /// Nil when the file holds no complete answer.
  init?(file: [UInt8]) {
    guard let json = try? JSON(parsing: file, depth: JSON.maximumDepth + 2), let request = json["request"]?.string,
      let messageID = json["messageId"]?.string, let text = json["text"]?.string,
      let reason = json["finishReason"]?.string
    else { return nil }
    var more: JSON.Members = [:]
    if case .object(let members)? = json["more"] { more = members }
    self.init(
      request: request, messageID: messageID, text: text,
      finish: GenerationResult(
        messageID: json["storedAs"]?.string, sessionID: json["sessionId"]?.string, completedAt: json["at"]?.string,
        completion: Completion(FinishReason(rawValue: reason), usage: json["usage"].flatMap(Usage.init(json:))),
        extraMembers: more), user: json["user"]?.string, model: json["model"]?.string, title: json["title"]?.string)
  }

  /// Sends it again: in parts, so that a large one does not hold the loop.
  func send(to stream: ResponseStream) async throws -> GenerationResult {
    var rest = text[...]
    while !rest.isEmpty {
      let part = rest.prefix(Self.maximumPartCharacters)
      try await stream.send(String(part))
      rest = rest[part.endIndex...]
      if !rest.isEmpty { await Task.yield() }
    }
    return finish
  }

  private static let maximumPartCharacters = 4096
}

/// The one right to answer the requests that carry a certain key, for as long as it is kept: a locked file, so it holds
/// across processes, and a process that is killed gives it back.
final class ReplayClaim: Sendable {
  /// The digest of the request that it was acquired for.
  let request: String
  /// The digest of the key.
  let key: String
  fileprivate let path: String
  fileprivate let descriptor: Descriptor
  private let unit: DescriptorUnit?
  /// Whether it outlives its stream: a complete answer is kept in its file, or waits to be stored.
  fileprivate let isSettled = Locked(false)

  fileprivate init(
    _ path: String, key: String, request: String, _ descriptor: consuming Descriptor, _ unit: DescriptorUnit?
  ) {
    self.path = path
    self.key = key
    self.request = request
    self.descriptor = descriptor
    self.unit = unit
  }

  /// A complete answer waits to be stored: the key is nobody else's until it is.
  func settle() { isSettled.withLock { $0 = true } }
}

enum ReplayState: Sendable {
  /// Nobody answers it: the caller may.
  case free(ReplayClaim)
  /// A stream of this id does.
  case running(stream: String)
  case complete(Replay)
}

/// Answers for an hour by their `Idempotency-Key`: `replays/DIGEST.json`.
extension Store {
  static let replaySeconds = 3600

  /// The stream that answers the requests with a key now, if one does. Costs little; a complete answer is not read.
  func runningStream(of key: String, _ user: User) async -> String? {
    let path = replay(under: Digest(of: key).hex, of: user)
    return await pool.run {
      guard let descriptor = try? openIfThere(path, O_RDWR), flock(descriptor.number, LOCK_SH | LOCK_NB) != 0 else {
        return nil
      }
      return Self.runningStream(path)
    }
  }

  /// Looks a key up, and takes it for `stream` when it is free.
  ///
  /// - Parameters:
  ///   - request: the digest of the request.
  ///   - unit: for the descriptor that a claim keeps open.
  func claimReplay(
    of key: String, request: String, by stream: String, _ user: User, unit: DescriptorUnit? = nil
  ) async throws(SystemError) -> ReplayState {
    let folder = replays(of: user)
    let digest = Digest(of: key).hex
    let path = replay(under: digest, of: user)
    return try await pool.run { () throws(SystemError) in
      try makeFolders(folder)
      Self.sweep(folder)
      var isLocked = false
      while true {
        // Once it is complete it changes no more, and any number may read it.
        if let replay = Self.complete(path) { return .complete(replay) }
        let descriptor = try openOrMake(path)
        guard flock(descriptor.number, LOCK_EX | LOCK_NB) == 0 else {
          guard errno == EWOULDBLOCK else { throw SystemError("lock \(path)") }
          // Not at once: another may only look whether it is locked, and the name be that of a stream that was killed.
          if isLocked, let running = Self.runningStream(path) { return .running(stream: running) }
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
        return .free(ReplayClaim(path, key: digest, request: request, descriptor, unit))
      }
    }
  }

  /// Keeps a complete answer. The claim is given back when its last user lets it go.
  func complete(_ claim: ReplayClaim, with replay: Replay) async throws(SystemError) {
    if claim.isSettled.withLock({ $0 }) { return }
    try await retrying { () throws(SystemError) in try keep(replay, for: claim) }
  }

  /// Keeps a complete answer for a claim. Blocks.
  func keep(_ replay: Replay, for claim: ReplayClaim) throws(SystemError) {
    try replaceFile(claim.path, with: replay.file)
    claim.settle()
  }

  /// Keeps a complete answer under the digest of its key. Blocks.
  func keep(_ replay: Replay, under key: String, of user: User) throws(SystemError) {
    try makeFolders(replays(of: user))
    try replaceFile(self.replay(under: key, of: user), with: replay.file)
  }

  /// Gives a claim up: the next request with its key is answered anew, unless a complete answer is kept.
  func abandon(_ claim: ReplayClaim) async {
    if claim.isSettled.withLock({ $0 }) { return }
    // What has its name now may be another's.
    await pool.run { if Self.isStill(claim.path, claim.descriptor) { unsafe unlink(claim.path) } }
  }

  /// Removes the complete answer to a claim: what it answers with is not to be stored any more.
  func discard(_ claim: ReplayClaim) async {
    await pool.run { if Self.complete(claim.path)?.request == claim.request { unsafe unlink(claim.path) } }
  }

  /// Stores the turn of a complete answer that is kept under the digest of its key, if it is not there. Blocks for the
  /// session's lock.
  ///
  /// - Returns: false when the answer is not kept any more: its session was deleted, and is not begun again.
  func finish(
    _ turn: Turn, in session: String, key: String, _ user: User
  ) async throws(SystemError) -> Bool {
    let path = replay(under: key, of: user)
    let (folder, file) = (sessions(of: user), file(of: session, user))
    return try await retrying { () throws(SystemError) in
      // Asked under the lock once more: deleting a session removes the answers before the session.
      let isKept = { unsafe access(path, F_OK) == 0 }
      guard isKept() else { return false }
      try makeFolders(folder)
      return try file.append(turn, ifAbsent: true, while: isKept)
    }
  }

  private func replays(of user: User) -> String { folder(of: user) + "/replays" }

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
  func removeOldReplays() {
    for user in (try? fileNames(in: root + "/users")) ?? [] {
      let folder = "\(root)/users/\(user)/replays"
      if unsafe access(folder, F_OK) == 0 { Self.removeOld(in: folder) }
    }
  }

  /// Removes the answers that belong to a session. Blocks.
  static func removeReplays(of session: String, in folder: String) {
    for name in (try? fileNames(in: folder + "/replays")) ?? [] where name != sweepMarker {
      let path = "\(folder)/replays/\(name)"
      if let beginning = try? readFile(path, maximumBytes: 128), Replay.isOf(session: session, beginning) {
        unsafe unlink(path)
      }
    }
  }

  /// Removes what is old, if that was not done in the last ten minutes: a CGI program has nobody else to do it.
  private static func sweep(_ folder: String) {
    let marker = folder + "/" + sweepMarker
    var status = stat()
    if unsafe stat(marker, &status) == 0, status.st_mtim.tv_sec > time(nil) - sweepSeconds { return }
    removeOld(in: folder)
  }

  private static let sweepMarker = "swept"
  private static let sweepSeconds = 600

  private static func removeOld(in folder: String) {
    if let marker = try? openOrMake(folder + "/" + sweepMarker, O_TRUNC) { futimens(marker.number, nil) }
    let oldest = time(nil) - replaySeconds
    for name in (try? fileNames(in: folder)) ?? [] where name != sweepMarker {
      let path = "\(folder)/\(name)"
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
