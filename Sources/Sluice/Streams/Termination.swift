/// The reason why a stream terminates. It is indirect, to take one word in the frames of long-lived tasks.
indirect enum Termination: Sendable {
  /// The response is complete and, where required, stored.
  case completed(GenerationResult)
  case failed(Failure)
  /// The user stopped the stream.
  case stopped
  /// The client disconnected, or read nothing for too long.
  case disconnected

  var outcome: Outcome {
    switch self {
    case .completed: .completed
    case .failed(let failure): Outcome(failure.code)
    case .stopped: .stopped
    case .disconnected: .disconnected
    }
  }

  /// Whether the terminal record can be large: it contains members of an embedder, or long calls of tools.
  var isLarge: Bool {
    guard case .completed(let result) = self else { return false }
    return !result.extraMembers.all.isEmpty || (result.more?.byteCount ?? 0) > 16 * 1024
  }

  /// The terminal record.
  var event: StreamEvent {
    switch self {
    case .completed(let result): .completed(result)
    case .failed(let failure): .failed(failure)
    case .stopped: .cancelled(reason: "stopped")
    case .disconnected: .cancelled(reason: "disconnected")
    }
  }
}
