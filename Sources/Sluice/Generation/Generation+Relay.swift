import Upstream

extension Generation {
  /// Sends all of a model's output as it comes.
  ///
  /// While the reader keeps up, deltas come through ``receive(_:)`` and this task sleeps. It wakes for what must wait, and
  /// for the end.
  ///
  /// - Parameter isLast: whether the text is complete with it: what follows is made of all of the text. In the same
  ///   frame, for each is memory that every stream takes as long as it lives.
  /// - Returns: how the output was completed.
  func relay(_ output: ModelOutput, isLast: Bool = false) async throws -> Completion {
    source = output
    defer {
      source = nil
      output.cancel()
    }
    return try await reactor.onCancel(output.cancel) {
      try await output.waitUntilAccepted()
      try await open()
      output.receiver = self
      while true {
        switch try await output.next() {
        case .delta(let text):
          if !text.isEmpty { try append(text) }
          try await flush()
        case .completed(let completion):
          try await flush()
          if isLast { try await finishText() }
          return completion
        }
      }
    }
  }
}
