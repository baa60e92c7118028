import Upstream

extension Generation {
  /// Sends a model's output as it arrives, and returns when it is complete.
  ///
  /// While the reader keeps up, deltas arrive through ``receive(_:)`` and this task sleeps. It wakes for deltas that
  /// have to wait for the reader, and for the end of the output.
  ///
  /// - Parameter isLast: whether this output completes the text, so that ``finishText()`` is called here. A separate
  ///   function would have its own frame, which costs memory for the lifetime of every stream.
  /// - Returns: how the output was completed.
  func relay(_ output: ModelOutput, isLast: Bool = false) async throws -> Completion {
    source = output
    defer {
      source = nil
      output.cancel()
    }
    return try await reactor.onCancel(output.cancel) {
      try await output.waitUntilAccepted()
      try begin()
      output.receiver = self
      // The first delta often arrives together with the head of the model's response, and is sent with that of this one.
      if !output.hasQueuedEvents { try await flush() }
      while true {
        switch try await output.next() {
        case .delta(let text):
          if !text.isEmpty { try append(text) }
          // Deltas that have waited together are sent in as few writes as possible.
          if !output.hasQueuedEvents || !makeRoom(for: 0) { try await flush() }
        case .chunk(let chunk):
          try append(chunk)
          if !output.hasQueuedEvents || !makeRoom(for: 0) { try await flush() }
        case .completed(let completion):
          try await flush()
          if isLast { try await finishText() }
          return try completion.redacted(by: redactionRules)
        }
      }
    }
  }
}
