import EventLoop

/// The limits in time of one generation, which owns it. Belongs to its loop.
final class GenerationDeadlines {
  /// Since when the model has been silent.
  enum Silence {
    /// It was started then, and has shown no sign of life yet.
    case sinceStart(LoopClock.Instant)
    /// Its last sign of life was then.
    case since(LoopClock.Instant)
    /// No model is waited for: the reader is slow, which the write timeout limits, or the handler does other work.
    case none
  }

  private unowned let generation: Generation
  private let limits: GenerationLimits
  private var idleTimer: Timer?
  private var totalTimer: Timer?

  /// Starts the clocks. A delta costs no more than storing its time: the generation is asked when a timer fires.
  init(_ limits: GenerationLimits, of generation: Generation) {
    self.limits = limits
    self.generation = generation
    totalTimer = generation.reactor.schedule(after: limits.total) { [unowned self] in
      timeOut("The response was not complete within \(self.limits.total).")
    }
    scheduleIdle(after: min(limits.firstToken, limits.idle))
  }

  private func scheduleIdle(after delay: Duration) {
    idleTimer = generation.reactor.schedule(after: delay) { [unowned self] in checkSilence() }
  }

  private func checkSilence() {
    let (start, limit): (LoopClock.Instant, Duration)
    switch generation.silence {
    case .sinceStart(let instant): (start, limit) = (instant, limits.firstToken)
    case .since(let instant): (start, limit) = (instant, limits.idle)
    case .none: return scheduleIdle(after: limits.idle)
    }
    let elapsed = generation.reactor.now - start
    if elapsed < limit {
      scheduleIdle(after: limit - elapsed)
    } else {
      timeOut("The model sent no output for \(limit).")
    }
  }

  private func timeOut(_ message: String) {
    generation.terminate(.failed(Failure(.upstreamTimeout, message)))
  }

  deinit { cancel() }

  /// Cancels them: storing the result is not subject to them.
  func cancel() {
    idleTimer?.cancel()
    totalTimer?.cancel()
  }
}
