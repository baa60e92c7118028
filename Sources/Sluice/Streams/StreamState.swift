/// Why a stream ends. Indirect, so that it is a word in the frames of tasks that live as long as their streams.
indirect enum Termination: Sendable {
  /// The answer is complete and, where it is to be stored, stored.
  case completed(GenerationResult)
  case failed(Failure)
  /// The user asked for its end.
  case stopped
  /// Nobody reads any more.
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
    case .completed(let finish): .completed(finish)
    case .failed(let failure): .failed(failure)
    case .stopped: .cancelled(reason: "stopped")
    case .disconnected: .cancelled(reason: "disconnected")
    }
  }
}

/// The life of a stream: the head once, records, one terminal record. A value that decides; the stream acts.
struct StreamState {
  private enum Phase {
    /// The head is held back until the upstream has accepted: a refusal can still have its true status.
    case held
    case open
    case ended
  }

  enum Start: Equatable {
    case sendHead
    case alreadySent
    case tooLate
  }

  enum CloseAction: Equatable {
    /// Nothing has been sent: answer with the failure's own status.
    case refuse(Failure)
    /// Send the head, which was held, and the terminal record.
    case sendHeadAndRecord
    case sendRecord
    /// There is nobody to send it to: break off.
    case abort
    /// It has ended before; nothing is to be done.
    case none
  }

  private var phase = Phase.held

  /// The upstream has accepted, or has been waited for long enough.
  mutating func begin() -> Start {
    switch phase {
    case .held:
      phase = .open
      return .sendHead
    case .open: return .alreadySent
    case .ended: return .tooLate
    }
  }

  mutating func end(_ ending: Termination) -> CloseAction {
    defer { phase = .ended }
    switch (phase, ending) {
    case (.ended, _): return .none
    case (_, .disconnected): return .abort
    case (.held, .failed(let failure)): return .refuse(failure)
    case (.held, _): return .sendHeadAndRecord
    case (.open, _): return .sendRecord
    }
  }
}
