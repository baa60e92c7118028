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

  /// Whether the terminal record contains members of an embedder, which can be of any size.
  var hasExtraMembers: Bool {
    if case .completed(let result) = self { !result.extraMembers.all.isEmpty } else { false }
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
