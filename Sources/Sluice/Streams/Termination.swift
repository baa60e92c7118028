/// Why a stream terminates. Indirect, so that it is one word in the frames of tasks that live as long as their streams.
indirect enum Termination: Sendable {
  /// The response is complete and, where it must be stored, stored.
  case completed(GenerationResult)
  case failed(Failure)
  /// The user requested it.
  case stopped
  /// No reader is left.
  case disconnected

  var outcome: Outcome {
    switch self {
    case .completed: .completed
    case .failed(let failure): Outcome(failure.code)
    case .stopped: .stopped
    case .disconnected: .disconnected
    }
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
