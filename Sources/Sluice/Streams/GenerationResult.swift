import JSON
import Upstream

extension Completion {
  /// The finish reason unless it is `stop`.
  var cutReason: JSON? { finishReason == .stop ? nil : .string(finishReason.rawValue) }
}

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
  /// The response except the text of its first choice. Nil if there is nothing else.
  let more: OutputChunk?

  /// The text with which the model refused to answer; empty if it did not.
  public var refusal: String { more?.first?.refusal ?? "" }
  /// The calls of tools that the model asks for, in their order.
  public var toolCalls: [ToolCall] { more?.first?.toolCalls ?? [] }

  convenience init(completion: Completion = Completion(), extraMembers: JSON.Members = [:]) {
    self.init(
      messageID: nil, sessionID: nil, completedAt: nil, completion: completion, extraMembers: extraMembers)
  }

  init(
    messageID: String?, sessionID: String? = nil, completedAt: String? = nil, completion: Completion = Completion(),
    extraMembers: JSON.Members = [:], more: OutputChunk? = nil
  ) {
    self.more = more
    self.messageID = messageID
    self.sessionID = sessionID
    self.completedAt = completedAt
    self.completion = completion
    self.extraMembers = extraMembers
  }

  /// The finish reason if the model did not stop by itself: the text is then complete for the server, but not for a person.
  var cutReason: JSON? { completion.cutReason }

  /// Returns a copy with other extra members.
  func with(extraMembers: JSON.Members) -> GenerationResult {
    GenerationResult(
      messageID: messageID, sessionID: sessionID, completedAt: completedAt, completion: completion,
      extraMembers: extraMembers, more: more)
  }

  /// Returns a copy with what the response has beside its text.
  func with(more: OutputChunk?, completion: Completion? = nil) -> GenerationResult {
    GenerationResult(
      messageID: messageID, sessionID: sessionID, completedAt: completedAt, completion: completion ?? self.completion,
      extraMembers: extraMembers, more: more)
  }

  /// The members that report a refusal and calls of tools in terminal records and JSON responses.
  ///
  /// - Parameter name: the name of the member with the calls.
  func outputMembers(toolCalls name: String) -> JSON.Members { more?.first?.outputMembers(toolCalls: name) ?? [:] }
}
