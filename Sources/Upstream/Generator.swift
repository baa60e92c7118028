import EventLoop
import JSON

/// One message of a conversation, as chat models take it.
public struct Message: Sendable, Equatable {
  public enum Role: String, Sendable {
    case system, developer, user, assistant
  }

  public var role: Role
  public var content: String

  public init(_ role: Role, _ content: String) {
    self.role = role
    self.content = content
  }
}

/// What a model is asked.
public struct Prompt: Sendable, Equatable {
  /// Oldest first; the last one is what is to be answered.
  public var messages: [Message]
  /// The model to ask, where the generator has several. Nil leaves the choice to the upstream.
  public var model: String?
  /// The most tokens of the answer. Nil means no limit of ours.
  public var maximumTokens: Int?
  /// Further members of the request to an OpenAI-compatible API, such as `temperature`, as they are to be sent.
  public var parameters: JSON.Members = [:]
  /// The pause that the echo makes before each word.
  public var echoGap: Duration

  public init(
    messages: [Message], model: String? = nil, maximumTokens: Int? = nil, echoGap: Duration = .milliseconds(30)
  ) {
    self.messages = messages
    self.model = model
    self.maximumTokens = maximumTokens
    self.echoGap = echoGap
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

/// Why a model stopped: the words of OpenAI's `finish_reason`.
public struct FinishReason: Sendable, Equatable, RawRepresentable {
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }

  /// It had said all.
  public static let stop = FinishReason(rawValue: "stop")
  /// It was cut off by a limit on tokens.
  public static let length = FinishReason(rawValue: "length")

  /// The reasons that mean that the model has said what it had to say: those of OpenAI's reference, which vLLM,
  /// llama.cpp, Ollama, OpenRouter and Azure use for that too. Every other one reports a failure: `error`, `abort`,
  /// `insufficient_system_resource`, or one that nobody has heard of yet.
  private static let completions: Set = ["stop", "length", "content_filter", "tool_calls", "function_call"]

  /// Whether a response that ends for this reason is complete.
  public var isCompletion: Bool { Self.completions.contains(rawValue) }
}

/// What an answer cost, in tokens, as the upstream counted it.
public struct Usage: Sendable, Equatable {
  public var promptTokens: Int
  public var completionTokens: Int
  public var totalTokens: Int

  public init(promptTokens: Int, completionTokens: Int, totalTokens: Int) {
    self.promptTokens = promptTokens
    self.completionTokens = completionTokens
    self.totalTokens = totalTokens
  }
}

/// How an answer ended that is complete.
public struct Completion: Sendable, Equatable {
  public var finishReason: FinishReason
  public var usage: Usage?

  public init(_ finishReason: FinishReason = .stop, usage: Usage? = nil) {
    self.finishReason = finishReason
    self.usage = usage
  }
}

/// Why there is no answer, or no whole one.
public struct GeneratorError: Error, Sendable, Equatable {
  public enum Code: Sendable, Equatable {
    /// The upstream refused, failed, could not be reached or did not speak the protocol.
    case failed
    /// It ended, or was cut off, after it had begun and before it had finished.
    case truncated
    /// It did not answer in time.
    case timedOut
    /// It asks for patience.
    case rateLimited
    /// The asking task was cancelled.
    case cancelled
    /// The administrator has to do something; the log says what.
    case misconfigured
  }

  public var code: Code
  /// What happened, for the client: no address, key or text of the upstream's is in it.
  public var message: String
  /// More, for the log.
  public var detail: String?
  /// Whether the same question may be answered if it is asked again later.
  public var isRetriable = true
  /// How long the upstream wants to be left alone (`Retry-After`).
  public var retryAfter: Duration?

  public init(_ code: Code, _ message: String, detail: String? = nil, retryAfter: Duration? = nil) {
    self.code = code
    self.message = message
    self.detail = detail
    self.retryAfter = retryAfter
  }

  static let cancelled = GeneratorError(.cancelled, "The answer was cancelled.")
}

/// A source of answers: a model, or something that behaves like one.
public protocol Generator: Sendable {
  /// Begins to answer `prompt` on the calling loop, and returns at once. What comes of it, errors included, comes
  /// through the ``ModelOutput``.
  func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput
}
