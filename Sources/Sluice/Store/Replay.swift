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
  var result: GenerationResult
  /// What the user said and the model that was asked, where a turn is stored.
  var user: String?
  var model: String?
  /// The title, where a report is stored.
  var title: String?

  static func == (a: Replay, b: Replay) -> Bool { a.file == b.file }

  /// The turn that is to be in the session's file.
  var turn: Turn? {
    guard let user, result.sessionID != nil, let at = result.completedAt else { return nil }
    return Turn(id: messageID, at: at, user: user, assistant: text, completion: result.completion, model: model)
  }

  /// The report that is to be a file.
  var report: StoredReport? {
    guard let id = result.extraMembers["reportId"]?.string, let report = result.extraMembers["report"],
      let at = result.completedAt
    else {
      return nil
    }
    return StoredReport(id: id, title: title, at: at, report: report)
  }

  var file: [UInt8] {
    var members: JSON.Members = ["v": .integer(1)]
    // First, for finding a session's answers by the beginnings of their files.
    members["sessionId"] = result.sessionID.map(JSON.string)
    members["request"] = .string(request)
    members["messageId"] = .string(messageID)
    members["text"] = .string(text)
    members["finishReason"] = .string(result.completion.finishReason.rawValue)
    members["storedAs"] = result.messageID.map(JSON.string)
    members["at"] = result.completedAt.map(JSON.string)
    members["user"] = user.map(JSON.string)
    members["model"] = model.map(JSON.string)
    members["title"] = title.map(JSON.string)
    members["usage"] = result.completion.usage?.json
    members["more"] = .object(result.extraMembers)
    return JSON.object(members).encoded + [0x0A]
  }

  init(
    request: String, messageID: String, text: String, result: GenerationResult, user: String? = nil,
    model: String? = nil,
    title: String? = nil
  ) {
    self.request = request
    self.messageID = messageID
    self.text = text
    self.result = result
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
      result: GenerationResult(
        messageID: json["storedAs"]?.string, sessionID: json["sessionId"]?.string, completedAt: json["at"]?.string,
        completion: Completion(FinishReason(rawValue: reason), usage: json["usage"].flatMap(Usage.init(json:))),
        extraMembers: more), user: json["user"]?.string, model: json["model"]?.string, title: json["title"]?.string)
  }
}
