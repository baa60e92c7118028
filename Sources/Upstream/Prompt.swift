import JSON

/// One message of a conversation, as chat models take it.
public struct Message: Sendable, Equatable {
  /// Who wrote a message, in the words of OpenAI's API.
  public enum Role: String, Sendable {
    /// The operator, to the model.
    case system
    /// The same, as newer models call it.
    case developer
    /// The person.
    case user
    /// The model.
    case assistant
  }

  /// Who wrote it.
  public var role: Role
  /// The text.
  public var content: String

  /// A message of `role`.
  public init(_ role: Role, _ content: String) {
    self.role = role
    self.content = content
  }
}

/// What a generator responds to: a conversation and what is known of the response that is wanted.
public struct Prompt: Sendable, Equatable {
  /// Oldest first; the last one is what is to be answered.
  public var messages: [Message]
  /// The model to ask, where the generator has several. Nil leaves the choice to the upstream.
  public var model: String?
  /// The most tokens of the answer. Nil means no limit of ours.
  public var maximumTokens: Int?
  /// Further members of the request to an OpenAI-compatible API, such as `temperature`, as they are to be sent.
  public var parameters: JSON.Members = [:]

  /// A prompt. The defaults leave the rest to the generator.
  public init(messages: [Message], model: String? = nil, maximumTokens: Int? = nil) {
    self.messages = messages
    self.model = model
    self.maximumTokens = maximumTokens
  }
}

extension Prompt {
  /// Whether encoding it would hold a loop for longer than an event may.
  var isLarge: Bool {
    var budget = 16 * 1024
    for message in messages {
      budget -= message.content.utf8.count + 64
      if budget < 0 { return true }
    }
    for member in parameters.all {
      member.value.spend(&budget)
      if budget < 0 { return true }
    }
    return false
  }
}

extension JSON {
  /// Takes about its size in bytes from `budget`, and stops when nothing is left.
  fileprivate func spend(_ budget: inout Int) {
    budget -= 32
    switch self {
    case .string(let text), .literal(let text): budget -= text.utf8.count
    case .array(let values):
      for value in values where budget >= 0 { value.spend(&budget) }
    case .object(let members):
      for member in members.all where budget >= 0 {
        budget -= member.name.utf8.count
        member.value.spend(&budget)
      }
    default: break
    }
  }
}
