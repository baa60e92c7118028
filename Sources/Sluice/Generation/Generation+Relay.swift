import Upstream

extension Generation {
  /// Sends all of a model's output as it comes, and finishes the text: what follows is made of it.
  ///
  /// - Returns: how the output was completed.
  func relayAll(_ output: ModelOutput) async throws -> Completion {
    let completion = try await relay(output)
    try await finishText()
    return completion
  }

  /// Sends all of a model's output as it comes.
  ///
  /// While the reader keeps up, deltas come through ``receive(_:)`` and this task sleeps. It wakes for what must wait, and
  /// for the end.
  ///
  /// - Returns: how the output was completed.
  func relay(_ output: ModelOutput) async throws -> Completion {
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
          return completion
        }
      }
    }
  }
}
