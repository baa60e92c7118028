/// The state machine of an event stream: one head, any number of records, one terminal record. It decides; the delivery
/// acts.
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
    /// Nothing has been sent: send an error response with the failure's own status.
    case refuse(Failure)
    /// Send the deferred head and the terminal record.
    case sendHeadAndRecord
    case sendRecord
    /// The reader has disconnected: abort the response.
    case abort
    /// The response is already closed.
    case none
  }

  private var phase = Phase.pending

  /// Opens the response once the upstream has accepted or a heartbeat is due.
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
