import JSON
import Upstream

/// The result of a completed generation, which its terminal record reports.
public final class GenerationResult: Sendable {
  /// The id under which the message is stored; nil if it is not stored.
  public let messageID: String?
  /// The session in which the message is stored; nil if it is not stored.
  public let sessionID: String?
  /// The time of completion (RFC 3339, UTC); nil if the result is not stored.
  let completedAt: String?
  /// The finish reason and the token usage.
  public let completion: Completion
  /// Extra members of the terminal record, such as `report`.
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

  /// Returns a copy with other extra members.
  func with(extraMembers: JSON.Members) -> GenerationResult {
    GenerationResult(
      messageID: messageID, sessionID: sessionID, completedAt: completedAt, completion: completion,
      extraMembers: extraMembers)
  }
}
