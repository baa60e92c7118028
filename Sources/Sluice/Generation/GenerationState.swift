/// The life of a generation: it produces, then its result is stored, and it is closed; a request for termination may come
/// at any time. A value that decides; its generation acts.
struct GenerationState {
  private enum Phase {
    /// The model, or the handler, produces text.
    case producing
    /// The text is complete, and something is made of it. No limit in time applies.
    case completing
    /// Termination was requested from outside the handler.
    ///
    /// - Parameter isComplete: whether the text was complete then, and the handler has not seen the request since.
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

  /// Whether the text is complete, and nothing has kept the handler from making its result of it.
  var isTextComplete: Bool {
    switch phase {
    case .completing, .terminating(_, isComplete: true): true
    case .producing, .terminating, .closed: false
    }
  }

  /// Requests termination from outside the handler. The first request wins.
  ///
  /// - Returns: whether the handler must be cancelled for it.
  mutating func terminate(_ termination: Termination) -> Bool {
    if isTerminating { return false }
    phase = .terminating(termination, isComplete: isTextComplete)
    return true
  }

  /// Lets the handler go on, or observe that it must not.
  mutating func checkTermination() throws(StreamClosedError) {
    switch phase {
    case .producing, .completing: return
    case .terminating(let termination, _): phase = .terminating(termination, isComplete: false)
    case .closed: break
    }
    throw StreamClosedError()
  }

  /// The text is complete.
  ///
  /// - Returns: whether the model's deadlines must be cancelled.
  mutating func completeText() -> Bool {
    guard case .producing = phase else { return false }
    phase = .completing
    return true
  }

  /// The handler has returned or thrown.
  ///
  /// - Parameter own: its reason, which counts unless another came before.
  /// - Returns: how the generation terminates.
  mutating func close(_ own: Termination) -> Termination {
    defer { phase = .closed }
    guard case .terminating(let requested, let isComplete) = phase else { return own }
    // A completed, possibly stored response stays completed; a stop or a timeout that arrives later has no effect. What a
    // handler returns whose text was not complete then is not complete, whatever it has caught.
    switch (own, requested) {
    case (.completed, .stopped) where isComplete, (.completed, .failed) where isComplete: return own
    default: return requested
    }
  }
}
