extension Replay {
  /// Sends it again: in parts, so that a large one does not hold the loop.
  func send(to generation: Generation) async throws -> GenerationResult {
    var rest = text[...]
    while !rest.isEmpty {
      let part = rest.prefix(Self.maximumPartCharacters)
      try await generation.send(String(part))
      rest = rest[part.endIndex...]
      if !rest.isEmpty { await Task.yield() }
    }
    return result
  }

  private static let maximumPartCharacters = 4096
}
