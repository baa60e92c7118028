/// A part of a model's output other than its text.
public enum OutputPart: Sendable, Equatable {
  /// A delta of the model's reasoning, never empty.
  case reasoning(String)
  /// A delta of the text with which the model refuses to answer, never empty.
  case refusal(String)
  /// A call of a tool, or a delta of one.
  case toolCall(ToolCall)
  /// A source of the text, which the model cites.
  case source(url: String, title: String?)
}

/// A model's call of a tool that the request declares, complete or as a delta. Sluice calls no tools itself: the client
/// does, and sends the result with its next request.
public struct ToolCall: Sendable, Equatable {
  /// The number of the call in its response, from 0. The deltas of one call have the same.
  public var index: Int
  /// The id, which the tool's result refers to. Nil if an earlier delta of the call has it.
  public var id: String?
  /// The name of the tool. Nil if an earlier delta of the call has it.
  public var name: String?
  /// The arguments: JSON as the model wrote it, which need not be valid. In a delta, a piece of it.
  public var arguments: String

  /// Creates a call, or a delta of one.
  public init(index: Int, id: String? = nil, name: String? = nil, arguments: String = "") {
    self.index = index
    self.id = id
    self.name = name
    self.arguments = arguments
  }

  /// Appends a delta of the call. Some servers repeat the name in every delta, others send it in pieces.
  package mutating func join(_ delta: ToolCall) {
    if let id = delta.id, !id.isEmpty { self.id = id }
    if let name = delta.name, name != self.name { self.name = (self.name ?? "") + name }
    arguments += delta.arguments
  }
}
