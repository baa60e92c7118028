import EventLoop
import Glibc
import JSON
import Upstream

/// A complete answer that was given to a request with an `Idempotency-Key`, kept to be given again.
struct Replay: Sendable, Equatable {
  /// The digest of the request that it answers.
  let request: String
  let messageID: String
  let text: String
  let finish: Finish

  static func == (a: Replay, b: Replay) -> Bool { a.file == b.file }

  var file: [UInt8] {
    var members: JSON.Members = [
      "v": .integer(1), "request": .string(request), "messageId": .string(messageID), "text": .string(text),
      "finishReason": .string(finish.completion.finishReason.rawValue),
    ]
    members["storedAs"] = finish.messageID.map(JSON.string)
    members["sessionId"] = finish.sessionID.map(JSON.string)
    members["at"] = finish.at.map(JSON.string)
    members["usage"] = finish.completion.usage?.json
    members["more"] = .object(finish.more)
    return JSON.object(members).encoded + [0x0A]
  }

  init(request: String, messageID: String, text: String, finish: Finish) {
    self.request = request
    self.messageID = messageID
    self.text = text
    self.finish = finish
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
      finish: Finish(
        messageID: json["storedAs"]?.string, sessionID: json["sessionId"]?.string, at: json["at"]?.string,
        completion: Completion(FinishReason(rawValue: reason), usage: json["usage"].flatMap(Usage.init(json:))),
        more: more))
  }
}

/// The one right to answer the requests that carry a certain key, for as long as it is kept: a locked file, so it holds
/// across processes, and a process that is killed gives it back.
final class ReplayClaim: Sendable {
  fileprivate let path: String
  private let descriptor: Descriptor

  fileprivate init(_ path: String, _ descriptor: consuming Descriptor) {
    self.path = path
    self.descriptor = descriptor
  }
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

  /// Looks a key up, and takes it for `stream` when it is free.
  func claimReplay(of key: String, by stream: String, _ user: User) async throws(SystemError) -> ReplayState {
    let folder = folder(of: user) + "/replays"
    let path = "\(folder)/\(Digest(of: key).hex).json"
    return try await pool.run { () throws(SystemError) in
      try makeFolders(folder)
      Self.removeOld(in: folder)
      while true {
        // Once it is complete it changes no more, and any number may read it.
        if let replay = Self.complete(path) { return .complete(replay) }
        let descriptor = try openOrMake(path)
        guard flock(descriptor.number, LOCK_EX | LOCK_NB) == 0 else {
          guard errno == EWOULDBLOCK else { throw SystemError("lock \(path)") }
          if let running = Self.runningStream(path) { return .running(stream: running) }
          // Whoever has it has not said so yet, or is about to be done.
          usleep(2000)
          continue
        }
        // Another may have replaced or removed it between the two calls.
        guard Self.isStill(path, descriptor), Self.complete(path) == nil else { continue }
        let line = JSON.object(["v": .integer(1), "stream": .string(stream)]).encoded
        guard ftruncate(descriptor.number, 0) == 0,
          unsafe pwrite(descriptor.number, line, line.count, 0) == line.count
        else { throw SystemError("write \(path)") }
        return .free(ReplayClaim(path, descriptor))
      }
    }
  }

  /// Keeps a complete answer. The claim is given back when its last user lets it go.
  func complete(_ claim: ReplayClaim, with replay: Replay) async throws(SystemError) {
    try await pool.run { () throws(SystemError) in try replaceFile(claim.path, with: replay.file) }
  }

  /// Gives a claim up: the next request with its key is answered anew.
  func abandon(_ claim: ReplayClaim) async {
    await pool.run { _ = unsafe unlink(claim.path) }
  }

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
    for user in (try? fileNames(in: root + "/users")) ?? [] { Self.removeOld(in: "\(root)/users/\(user)/replays") }
  }

  /// Removes the answers that belong to a session. Blocks.
  static func removeReplays(of session: String, in folder: String) {
    for name in (try? fileNames(in: folder + "/replays")) ?? [] {
      let path = "\(folder)/replays/\(name)"
      if complete(path)?.finish.sessionID == session { unsafe unlink(path) }
    }
  }

  private static func removeOld(in folder: String) {
    let oldest = time(nil) - replaySeconds
    for name in (try? fileNames(in: folder)) ?? [] {
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
