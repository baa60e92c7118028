/// The life cycle of a generation: it produces text, completes its result, and is closed. Termination can be requested
/// at any time. A value that makes the decisions; its generation carries them out.
struct GenerationState {
  private enum Phase {
    /// The model or the handler produces text.
    case producing
    /// The text is complete, and the handler creates and stores its result. No deadline applies.
    case completing
    /// Termination was requested from outside the handler.
    ///
    /// - Parameter isComplete: whether the text was complete at that time and the handler has not observed the request
    ///   since.
    case terminating(Termination, isComplete: Bool)
    case closed
  }

  private var phase = Phase.producing

  /// Whether termination was requested, or has happened. Read for every delta.
  var isTerminating: Bool {
    switch phase {
    case .producing, .completing: false
    case .terminating, .closed: true
    }
  }

  /// Whether the text is complete and the handler has not observed a termination since.
  var isTextComplete: Bool {
    switch phase {
    case .completing, .terminating(_, isComplete: true): true
    case .producing, .terminating, .closed: false
    }
  }

  /// Requests termination from outside the handler. The first request wins.
  ///
  /// - Returns: whether the handler must be cancelled.
  mutating func terminate(_ termination: Termination) -> Bool {
    if isTerminating { return false }
    phase = .terminating(termination, isComplete: isTextComplete)
    return true
  }

  /// Throws if termination was requested, which the handler has then observed.
  mutating func checkTermination() throws(StreamClosedError) {
    switch phase {
    case .producing, .completing: return
    case .terminating(let termination, _): phase = .terminating(termination, isComplete: false)
    case .closed: break
    }
    throw StreamClosedError()
  }

  /// Records that the text is complete.
  ///
  /// - Returns: whether the deadlines must be cancelled.
  mutating func completeText() -> Bool {
    guard case .producing = phase else { return false }
    phase = .completing
    return true
  }

  /// Closes the generation after its handler has returned or thrown.
  ///
  /// - Parameter own: the handler's termination, which applies unless another was requested first.
  /// - Returns: how the generation terminates.
  mutating func close(_ own: Termination) -> Termination {
    defer { phase = .closed }
    guard case .terminating(let requested, let isComplete) = phase else { return own }
    // A completed, possibly stored response stays completed; a stop or a timeout that arrives later has no effect. If
    // the text was not complete when termination was requested, the result is not complete either, whatever errors the
    // handler has caught.
    switch (own, requested) {
    case (.completed, .stopped) where isComplete, (.completed, .failed) where isComplete: return own
    default: return requested
    }
  }
}
