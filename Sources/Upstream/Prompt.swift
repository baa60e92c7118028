import JSON

/// One message of a conversation with a chat model.
public struct Message: Sendable, Equatable {
  /// The author of a message, with the names of OpenAI's API.
  public enum Role: String, Sendable {
    /// The operator, who instructs the model.
    case system
    /// The operator, under the name that newer models use.
    case developer
    /// The user.
    case user
    /// The model.
    case assistant
    /// A tool that the model has called, with its result.
    case tool
    /// The same in the form that preceded tools.
    case function
  }

  /// The author.
  public var role: Role
  /// The text.
  public var content: String
  /// The message as an object of OpenAI's API, if it has more than a role and text: images, a name, tool calls. It is
  /// sent unchanged in place of the role and the text.
  package var json: JSON?

  /// Creates a message of `role`.
  public init(_ role: Role, _ content: String) {
    self.role = role
    self.content = content
  }
}

/// The input of a generator: a conversation and the parameters of the response.
public struct Prompt: Sendable, Equatable {
  /// The messages, oldest first. The last one is the message to respond to.
  public var messages: [Message]
  /// The model to use, if the generator has several. Nil leaves the choice to the upstream.
  public var model: String?
  /// The maximum number of output tokens. Nil sends no limit.
  public var maximumTokens: Int?
  /// Further members of the request to an OpenAI-compatible API, such as `temperature`, which are sent unchanged.
  public var parameters: JSON.Members = [:]

  /// Creates a prompt. The defaults leave the rest to the generator.
  public init(messages: [Message], model: String? = nil, maximumTokens: Int? = nil) {
    self.messages = messages
    self.model = model
    self.maximumTokens = maximumTokens
  }
}

extension Prompt {
  /// The messages in the form of OpenAI's API.
  var messagesJSON: JSON {
    .array(messages.map { $0.json ?? ["role": .string($0.role.rawValue), "content": .string($0.content)] })
  }

  /// The number of choices that the prompt asks for.
  var choices: Int { parameters["n"]?.integer ?? 1 }

  /// Whether encoding the prompt would block a loop for too long.
  var isLarge: Bool {
    var budget = 16 * 1024
    for message in messages {
      budget -= message.content.utf8.count + 64
      message.json?.spend(&budget)
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
  /// Subtracts the approximate encoded size in bytes from `budget`. Stops when the budget is exhausted.
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
