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
      timeOut("The response was not complete within \(self.limits.total).", limit: "stream_timeout")
    }
    scheduleIdle(after: min(limits.firstToken, limits.idle))
  }

  private func scheduleIdle(after delay: Duration) {
    idleTimer = generation.reactor.schedule(after: delay) { [unowned self] in checkSilence() }
  }

  private func checkSilence() {
    let (start, limit, name): (LoopClock.Instant, Duration, String)
    switch generation.silence {
    case .sinceStart(let instant): (start, limit, name) = (instant, limits.firstToken, "first_token_timeout")
    case .since(let instant): (start, limit, name) = (instant, limits.idle, "idle_timeout")
    case .none: return scheduleIdle(after: limits.idle)
    }
    let elapsed = generation.reactor.now - start
    if elapsed < limit {
      // The first delta can arrive at any time, and the idle timeout applies from then on.
      scheduleIdle(after: min(limit - elapsed, limits.idle))
    } else if let refusal = generation.source?.refusalWhileWaiting {
      generation.terminate(.failed(Failure(refusal)))
    } else {
      timeOut("The model sent no output for \(limit).", limit: name)
    }
  }

  /// Terminates the generation.
  ///
  /// - Parameter limit: the limit that was reached, for the log and the metrics: its setting without the prefix.
  private func timeOut(_ message: String, limit: String) {
    var failure = Failure(.upstreamTimeout, message, detail: "\(message) (SLUICE_\(limit.uppercased()))")
    failure.cause = limit
    generation.terminate(.failed(failure))
  }

  deinit { cancel() }

  /// Cancels the deadlines: storing the result is not subject to them.
  func cancel() {
    idleTimer?.cancel()
    deadlineTimer?.cancel()
  }
}
