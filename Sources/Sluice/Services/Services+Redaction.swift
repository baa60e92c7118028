extension Services {
  /// The rules for what the model says at a request's location; none where it has no patterns.
  ///
  /// - Throws: when they cannot be used: nothing may go out unredacted.
  func redactionRules(for configuration: Configuration) async throws(Failure) -> [RedactionRules.Rule] {
    guard let path = configuration.redactFile else { return [] }
    let redactions = try await redactionFiles.content(path, on: pool)
    if let issue = redactions.issues.first {
      throw Failure.incompleteConfiguration("\(path) is invalid at \(issue)")
    }
    return redactions.rules
  }

  /// A redactor for one text, where the request's location has patterns.
  func redactor(for configuration: Configuration) async throws(Failure) -> Redactor? {
    let rules = try await redactionRules(for: configuration)
    return rules.isEmpty ? nil : Redactor(rules)
  }

  /// What was kept, by the rules of today. It may be large, so a thread of the pool does it.
  func redacted(_ replay: Replay, for configuration: Configuration) async throws(Failure) -> Replay {
    let rules = try await redactionRules(for: configuration)
    if rules.isEmpty { return replay }
    return try await pool.run { () throws(Failure) in
      var replay = replay
      replay.text = try Redactor.redact(replay.text, by: rules)
      var more = replay.result.extraMembers
      more["report"] = try more["report"].map { (report) throws(Failure) in try Redactor.redact(report, by: rules) }
      replay.result = replay.result.with(extraMembers: more)
      return replay
    }
  }
}
