import Upstream

extension ResponseStream {
  /// Sends all of an answer as it comes.
  ///
  /// As long as the client keeps up, deltas come through ``receive(_:)`` and this task sleeps. It wakes for what
  /// takes waiting, and for the end.
  ///
  /// - Returns: how the answer was completed.
  func relay(_ answer: ModelOutput) async throws -> Completion {
    relayed = answer
    defer {
      relayed = nil
      answer.cancel()
    }
    return try await reactor.onCancel(answer.cancel) {
      try await answer.waitUntilAccepted()
      try await open()
      answer.receiver = self
      while true {
        switch try await answer.next() {
        case .delta(let text):
          if !text.isEmpty { try put(text) }
          try await flush()
        case .completed(let completion):
          try putHeld()
          try await flush()
          modelHasEnded()
          return completion
        }
      }
    }
  }
}
