import JSON

extension OutputChunk {
  /// The maximum nesting depth of chunks where they are kept.
  package static let maximumDepth = 512

  /// The form in which a chunk is kept in replays and transcripts.
  package var json: JSON {
    .array(
      choices.map { ["index": .integer($0.index), "delta": .object($0.delta), "members": .object($0.members)] })
  }

  /// Returns nil if `json` is not of that form.
  package init?(json: JSON) {
    guard let values = json.array else { return nil }
    self.init()
    for value in values {
      guard let index = value["index"]?.integer, let delta = value["delta"]?.object,
        let members = value["members"]?.object
      else { return nil }
      choices.append(Choice(index: index, delta: delta, members: members))
    }
  }
}
