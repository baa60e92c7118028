import JSON
import Upstream

/// A redactor for the deltas of a generation that are more than text. Each text is redacted like that of the first choice:
/// reasoning, refusals, and the text of other choices.
///
/// Calls of tools and sources are withheld until they are complete: as JSON they can hide a match behind escapes, or
/// join one from several deltas. Whatever contains the text once more, piece by piece, is dropped, such as log
/// probabilities.
final class ChunkRedactor {
  private struct Text: Hashable {
    let choice: Int
    let name: String
  }

  private let rules: [RedactionRules.Rule]
  private var redactors: [Text: Redactor] = [:]
  /// The texts in the order in which they began.
  private var texts: [Text] = []
  private var withheld = OutputChunk()
  /// The size of the text that is withheld.
  private(set) var withheldBytes = 0

  init(_ rules: [RedactionRules.Rule]) { self.rules = rules }

  /// Returns what can be sent of a delta now, without the text of the first choice, which has a redactor of its own.
  func feed(_ chunk: OutputChunk) throws(Failure) -> OutputChunk {
    var redacted = OutputChunk()
    for choice in chunk.choices {
      var delta: JSON.Members = [:]
      if choice.delta["role"] != nil { delta["role"] = "assistant" }
      if choice.index != 0 { try feed(choice.text, of: choice, "content", to: &delta) }
      let names = OutputChunk.Choice.reasoningNames.filter { choice.delta[$0]?.string != nil }
      for name in names { try feed(choice.delta[name]?.string ?? "", of: choice, name, to: &delta) }
      // In another form than a string, or in parts of the content.
      if names.isEmpty { try feed(choice.reasoning, of: choice, "reasoning_content", to: &delta) }
      try feed(choice.refusal, of: choice, "refusal", to: &delta)
      if !delta.all.isEmpty { redacted.choices.append(OutputChunk.Choice(index: choice.index, delta: delta)) }
      withhold(choice)
    }
    return redacted
  }

  private func feed(
    _ text: String, of choice: OutputChunk.Choice, _ name: String, to delta: inout JSON.Members
  ) throws(Failure) {
    if text.isEmpty { return }
    let key = Text(choice: choice.index, name: name)
    if redactors[key] == nil { texts.append(key) }
    let redactor = redactors[key] ?? Redactor(rules)
    redactors[key] = redactor
    let output = try redactor.feed(text.utf8Span.span)
    if !output.isEmpty { delta[name] = .string(String(decoding: output, as: UTF8.self)) }
  }

  private static let withheldNames = ["tool_calls", "function_call", "annotations"]

  /// Withholds the calls and sources of a choice and, if it is not the first, its finish reason, which follows its text.
  private func withhold(_ choice: OutputChunk.Choice) {
    var kept = OutputChunk.Choice(index: choice.index)
    for name in Self.withheldNames { kept.delta[name] = choice.delta[name] }
    kept.members["finish_reason"] = choice.members["finish_reason"]
    let chunk = OutputChunk([kept])
    if kept.isEmpty { return }
    withheldBytes += chunk.joinedBytes
    withheld.join(chunk)
  }

  /// Returns the rest of all texts, and the calls; no more input follows.
  func finish() throws(Failure) -> OutputChunk {
    var rest = OutputChunk()
    for text in texts {
      guard let output = try redactors[text]?.finish(), !output.isEmpty else { continue }
      rest.join(
        OutputChunk([
          OutputChunk.Choice(
            index: text.choice, delta: [text.name: .string(String(decoding: output, as: UTF8.self))])
        ]))
    }
    rest.join(try withheld.redacted(by: rules))
    withheldBytes = 0
    return rest
  }
}
