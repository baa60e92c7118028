import JSON
import Upstream

/// A completed response to a request with an `Idempotency-Key`, stored so that a repeated request receives it again.
///
/// A replay is stored before the turn or report, and contains all of its content. If the process is killed between the
/// two writes, or the second one fails, the next request with the key completes the storing.
struct Replay: Sendable, Equatable {
  /// The digest of the request.
  let request: String
  let messageID: String
  var text: String
  var result: GenerationResult
  /// The user's message and the requested model, if a turn is stored.
  var user: String?
  var model: String?
  /// The title, if a report is stored.
  var title: String?

  static func == (a: Replay, b: Replay) -> Bool { a.file == b.file }

  /// The turn that must be in the session's file; nil if none is stored.
  var turn: Turn? {
    guard let user, result.sessionID != nil, let at = result.completedAt else { return nil }
    var turn = Turn(id: messageID, at: at, user: user, assistant: text, completion: result.completion, model: model)
    turn.assistant.members = result.more?.storedMembers ?? [:]
    return turn
  }

  /// The report that must be stored; nil if there is none.
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
    // Comes first, so that the beginning of the file identifies the session.
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
    members["choices"] = result.more?.json
    members["members"] = result.completion.members.all.isEmpty ? nil : .object(result.completion.members)
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

  /// Returns whether the beginning of a file belongs to a replay of `session`.
  static func isOf(session: String, _ beginning: [UInt8]) -> Bool {
    beginning.starts(with: Array(#"{"v":1,"sessionId":"\#(session)","#.utf8))
  }

  /// Creates a replay from the content of a file; nil if it contains no completed response.
  init?(file: [UInt8]) {
    guard let json = try? JSON(parsing: file, depth: OutputChunk.maximumDepth), let request = json["request"]?.string,
      let messageID = json["messageId"]?.string, let text = json["text"]?.string,
      let reason = json["finishReason"]?.string
    else { return nil }
    var more: JSON.Members = [:]
    if case .object(let members)? = json["more"] { more = members }
    var completion = Completion(FinishReason(rawValue: reason), usage: json["usage"].flatMap(Usage.init(json:)))
    completion.members = json["members"]?.object ?? [:]
    self.init(
      request: request, messageID: messageID, text: text,
      result: GenerationResult(
        messageID: json["storedAs"]?.string, sessionID: json["sessionId"]?.string, completedAt: json["at"]?.string,
        completion: completion, extraMembers: more, more: json["choices"].flatMap(OutputChunk.init(json:))),
      user: json["user"]?.string, model: json["model"]?.string, title: json["title"]?.string)
  }
}
