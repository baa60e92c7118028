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
  /// Those of the prompt.
  public var promptTokens: Int
  /// Those of the response.
  public var completionTokens: Int
  /// Both.
  public var totalTokens: Int

  /// A usage, as a generator counts it.
  public init(promptTokens: Int, completionTokens: Int, totalTokens: Int) {
    self.promptTokens = promptTokens
    self.completionTokens = completionTokens
    self.totalTokens = totalTokens
  }
}

/// How an answer ended that is complete.
public struct Completion: Sendable, Equatable {
  /// Why the model stopped.
  public var finishReason: FinishReason
  /// What it used; nil when it is not known.
  public var usage: Usage?

  /// A completion; ``FinishReason/stop`` is the usual reason.
  public init(_ finishReason: FinishReason = .stop, usage: Usage? = nil) {
    self.finishReason = finishReason
    self.usage = usage
  }
}
