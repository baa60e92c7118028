import JSON

/// The reason why a model stopped, as in OpenAI's `finish_reason`.
public struct FinishReason: Sendable, Equatable, RawRepresentable {
  public let rawValue: String
  public init(rawValue: String) { self.rawValue = rawValue }

  /// The model finished its output.
  public static let stop = FinishReason(rawValue: "stop")
  /// A token limit truncated the output.
  public static let length = FinishReason(rawValue: "length")

  /// The reasons of complete outputs: those of OpenAI's reference, which vLLM, llama.cpp, Ollama, OpenRouter and Azure
  /// use in the same sense. Every other reason is a failure, such as `error`, `abort`, `insufficient_system_resource`,
  /// or one that is not known yet.
  private static let completions: Set = ["stop", "length", "content_filter", "tool_calls", "function_call"]

  /// Whether a response with this reason is complete.
  public var isCompletion: Bool { Self.completions.contains(rawValue) }
}

/// The token usage of a response, as counted by the upstream.
public struct Usage: Sendable, Equatable {
  /// The number of tokens in the prompt.
  public var promptTokens: Int
  /// The number of tokens in the response.
  public var completionTokens: Int
  /// The total number of tokens.
  public var totalTokens: Int
  /// Further members of OpenAI's object, such as `prompt_tokens_details`. Empty by default.
  public var details: JSON.Members = [:]

  /// Creates a usage from a generator's counts.
  public init(promptTokens: Int, completionTokens: Int, totalTokens: Int) {
    self.promptTokens = promptTokens
    self.completionTokens = completionTokens
    self.totalTokens = totalTokens
  }
}

extension Usage {
  /// Returns the members of OpenAI's object beside the three counts.
  package static func details(of json: JSON) -> JSON.Members {
    let counts = [
      "prompt_tokens", "completion_tokens", "total_tokens", "promptTokens", "completionTokens", "totalTokens",
    ]
    return JSON.Members((json.object?.all ?? []).filter { !counts.contains($0.name) && $0.value != .null })
  }
}

/// The result of a complete response.
public struct Completion: Sendable, Equatable {
  /// The reason why the model stopped.
  public var finishReason: FinishReason
  /// The token usage. Nil if it is unknown.
  public var usage: Usage? {
    get { details?.usage }
    set { details = Details(newValue, members) }
  }
  /// The members that the upstream's response has beside its choices and the usage, such as `system_fingerprint`.
  package var members: JSON.Members {
    get { details?.members ?? [:] }
    set { details = Details(usage, newValue) }
  }
  /// Apart, so that a completion takes little of the memory that the task of every stream keeps.
  private var details: Details?

  private final class Details: Sendable {
    let usage: Usage?
    let members: JSON.Members

    init(_ usage: Usage?, _ members: JSON.Members) {
      self.usage = usage
      self.members = members
    }
  }

  /// Creates a completion. ``FinishReason/stop`` is the usual reason.
  public init(_ finishReason: FinishReason = .stop, usage: Usage? = nil) {
    self.finishReason = finishReason
    if let usage { details = Details(usage, [:]) }
  }

  public static func == (a: Completion, b: Completion) -> Bool {
    a.finishReason == b.finishReason && a.usage == b.usage && a.members == b.members
  }
}
