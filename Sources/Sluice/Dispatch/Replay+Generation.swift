extension Replay {
  /// Sends the stored response again, and returns its result. The text is split into deltas, so that a large one does
  /// not block the loop.
  func send(to generation: Generation) async throws -> GenerationResult {
    // A model reasons before it answers, and calls tools after that.
    if let more = result.more { try await generation.send(more.onlyReasoning) }
    var rest = text[...]
    while !rest.isEmpty {
      let part = rest.prefix(Self.maximumPartCharacters)
      try await generation.send(String(part))
      rest = rest[part.endIndex...]
      if !rest.isEmpty { await Task.yield() }
    }
    if let more = result.more { try await generation.send(more.withoutReasoning) }
    return result
  }

  private static let maximumPartCharacters = 4096
}
