extension Services {
  /// Returns the redaction rules of a request's location; empty if no redaction file is configured.
  ///
  /// - Throws: ``Failure`` when the rules are not usable, because nothing must be sent unredacted.
  func redactionRules(for configuration: Configuration) async throws(Failure) -> [RedactionRules.Rule] {
    guard let path = configuration.redactFile else { return [] }
    let redactions = try await redactionFiles.content(path, on: pool)
    if let issue = redactions.issues.first {
      throw Failure.incompleteConfiguration("\(path) is invalid at \(issue)")
    }
    return redactions.rules
  }

  /// Returns a redactor for one text; nil if the request's location has no rules.
  func redactor(for configuration: Configuration) async throws(Failure) -> Redactor? {
    let rules = try await redactionRules(for: configuration)
    return rules.isEmpty ? nil : Redactor(rules)
  }

  /// Returns a stored response, redacted by the current rules. It can be large, so a thread of the pool redacts it.
  func redacted(_ replay: Replay, for configuration: Configuration) async throws(Failure) -> Replay {
    let rules = try await redactionRules(for: configuration)
    if rules.isEmpty { return replay }
    return try await pool.run { () throws(Failure) in
      var replay = replay
      replay.text = try Redactor.redact(replay.text, by: rules)
      var more = replay.result.extraMembers
      more["report"] = try more["report"].map { (report) throws(Failure) in try Redactor.redact(report, by: rules) }
      replay.result = replay.result.with(extraMembers: more)
      replay.result = replay.result.with(
        more: try replay.result.more?.redacted(by: rules), completion: try replay.result.completion.redacted(by: rules))
      return replay
    }
  }
}
