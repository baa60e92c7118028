import EventLoop

/// The deadlines of one generation, which owns them. Belongs to the generation's loop.
final class GenerationDeadlines {
  /// The beginning of the model's current silence.
  enum Silence {
    /// The model was started at this time and has shown no activity yet.
    case sinceStart(LoopClock.Instant)
    /// The model's last activity was at this time.
    case since(LoopClock.Instant)
    /// The model is not expected to be active: the reader is slow, which the write timeout limits, or the handler does
    /// other work.
    case none
  }

  private unowned let generation: Generation
  private let limits: GenerationLimits
  private var idleTimer: Timer?
  private var deadlineTimer: Timer?

  /// Starts the deadlines. A delta only stores its time; a timer that fires compares it, and rearms or terminates.
  init(_ limits: GenerationLimits, of generation: Generation) {
    self.limits = limits
    self.generation = generation
    deadlineTimer = generation.reactor.schedule(after: limits.total) { [unowned self] in
      timeOut("The response was not complete within \(self.limits.total).", setting: "SLUICE_STREAM_TIMEOUT")
    }
    scheduleIdle(after: min(limits.firstToken, limits.idle))
  }

  private func scheduleIdle(after delay: Duration) {
    idleTimer = generation.reactor.schedule(after: delay) { [unowned self] in checkSilence() }
  }

  private func checkSilence() {
    let (start, limit, setting): (LoopClock.Instant, Duration, String)
    switch generation.silence {
    case .sinceStart(let instant): (start, limit, setting) = (instant, limits.firstToken, "SLUICE_FIRST_TOKEN_TIMEOUT")
    case .since(let instant): (start, limit, setting) = (instant, limits.idle, "SLUICE_IDLE_TIMEOUT")
    case .none: return scheduleIdle(after: limits.idle)
    }
    let elapsed = generation.reactor.now - start
    if elapsed < limit {
      scheduleIdle(after: limit - elapsed)
    } else {
      timeOut("The model sent no output for \(limit).", setting: setting)
    }
  }

  /// Terminates the generation.
  ///
  /// - Parameter setting: the limit that was reached, for the log.
  private func timeOut(_ message: String, setting: String) {
    generation.terminate(.failed(Failure(.upstreamTimeout, message, detail: "\(message) (\(setting))")))
  }

  deinit { cancel() }

  /// Cancels the deadlines: storing the result is not subject to them.
  func cancel() {
    idleTimer?.cancel()
    deadlineTimer?.cancel()
  }
}
