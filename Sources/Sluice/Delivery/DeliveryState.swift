/// The life of an event stream: the head once, records, one terminal record. A value that decides; its delivery acts.
struct DeliveryState {
  private enum Phase {
    /// The head is deferred until the upstream accepts, so that a refusal can still have its own status.
    case pending
    case open
    case closed
  }

  enum BeginAction: Equatable {
    case sendHead
    case none
  }

  enum CloseAction: Equatable {
    /// Nothing was sent: respond with the failure's own status.
    case refuse(Failure)
    /// Send the deferred head and the terminal record.
    case sendHeadAndRecord
    case sendRecord
    /// No reader is left: abort the response.
    case abort
    /// It was closed before.
    case none
  }

  private var phase = Phase.pending

  /// The upstream has accepted, or has been waited for long enough.
  mutating func begin() -> BeginAction {
    guard case .pending = phase else { return .none }
    phase = .open
    return .sendHead
  }

  mutating func close(_ termination: Termination) -> CloseAction {
    defer { phase = .closed }
    switch (phase, termination) {
    case (.closed, _): return .none
    case (_, .disconnected): return .abort
    case (.pending, .failed(let failure)): return .refuse(failure)
    case (.pending, _): return .sendHeadAndRecord
    case (.open, _): return .sendRecord
    }
  }
}
