import JSON
import Upstream

extension OutputChunk {
  /// Returns a complete response, redacted. Log probabilities, which have its text piece by piece, are dropped.
  func redacted(by rules: [RedactionRules.Rule]) throws(Failure) -> OutputChunk {
    OutputChunk(
      try choices.map { (choice) throws(Failure) in
        var choice = choice
        choice.delta = try Redactor.redact(message: choice.delta, by: rules)
        choice.members["logprobs"] = nil
        choice.members = try Redactor.redact(message: choice.members, by: rules)
        return choice
      })
  }
}

extension Completion {
  /// The members of a response that cannot have its text piece by piece.
  private static let wholeMembers: Set = ["system_fingerprint", "service_tier", "provider", "citations", "timings"]

  /// Returns the completion with the details of its usage and its members redacted. Members that are not known are
  /// dropped.
  func redacted(by rules: [RedactionRules.Rule]) throws(Failure) -> Completion {
    if rules.isEmpty { return self }
    var completion = self
    if !members.all.isEmpty {
      let whole = JSON.Members(members.all.filter { Self.wholeMembers.contains($0.name) })
      completion.members = try Redactor.redact(.object(whole), by: rules).object ?? [:]
    }
    if let details = usage?.details, !details.all.isEmpty {
      completion.usage?.details = try Redactor.redact(.object(details), by: rules).object ?? [:]
    }
    return completion
  }
}
