import JSON
import Upstream

/// The result of a completed generation: what its terminal record reports.
public final class GenerationResult: Sendable {
  /// The id under which the message is stored; nil where it is not.
  public let messageID: String?
  /// The session in which it is stored; nil where it is not.
  public let sessionID: String?
  /// When it was completed, where it is stored (RFC 3339, UTC).
  let completedAt: String?
  /// Why the model stopped, and its usage of tokens.
  public let completion: Completion
  /// Further members of the terminal record, such as `report`.
  public let extraMembers: JSON.Members

  convenience init(completion: Completion = Completion(), extraMembers: JSON.Members = [:]) {
    self.init(
      messageID: nil, sessionID: nil, completedAt: nil, completion: completion, extraMembers: extraMembers)
  }

  init(
    messageID: String?, sessionID: String? = nil, completedAt: String? = nil, completion: Completion = Completion(),
    extraMembers: JSON.Members = [:]
  ) {
    self.messageID = messageID
    self.sessionID = sessionID
    self.completedAt = completedAt
    self.completion = completion
    self.extraMembers = extraMembers
  }

  /// A copy with other further members.
  func with(extraMembers: JSON.Members) -> GenerationResult {
    GenerationResult(
      messageID: messageID, sessionID: sessionID, completedAt: completedAt, completion: completion,
      extraMembers: extraMembers)
  }
}
