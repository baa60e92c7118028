import EventLoop

/// The limits in time of one generation. Belongs to its loop.
final class GenerationDeadlines {
  /// Since when the model has been silent.
  enum Silence {
    /// Since the start: no sign of life yet.
    case sinceStart
    case since(LoopClock.Instant)
    /// The reader is slow, which the write timeout limits.
    case readerIsSlow
  }

  private let limits: GenerationLimits
  private let reactor: Reactor
  private let startedAt: LoopClock.Instant
  private var idleTimer: Timer?
  private var totalTimer: Timer?

  init(_ limits: GenerationLimits, on reactor: Reactor) {
    self.limits = limits
    self.reactor = reactor
    startedAt = reactor.now
  }

  /// Starts the clocks.
  ///
  /// - Parameters:
  ///   - silence: is called when a timer fires, so that a delta costs no more than storing its time.
  ///   - onTimeout: is called once.
  func start(silence: @escaping () -> Silence, onTimeout: @escaping (Failure) -> Void) {
    totalTimer = reactor.schedule(after: limits.total) { [limits] in
      onTimeout(Failure(.upstreamTimeout, "The answer took longer than \(limits.total)."))
    }
    scheduleIdle(after: min(limits.firstToken, limits.idle), silence, onTimeout)
  }

  private func scheduleIdle(
    after delay: Duration, _ silence: @escaping () -> Silence, _ onTimeout: @escaping (Failure) -> Void
  ) {
    idleTimer = reactor.schedule(after: delay) { [unowned self] in
      let (start, limit): (LoopClock.Instant, Duration)
      switch silence() {
      case .sinceStart: (start, limit) = (startedAt, limits.firstToken)
      case .since(let instant): (start, limit) = (instant, limits.idle)
      case .readerIsSlow: return scheduleIdle(after: limits.idle, silence, onTimeout)
      }
      let elapsed = reactor.now - start
      if elapsed < limit {
        scheduleIdle(after: limit - elapsed, silence, onTimeout)
      } else {
        onTimeout(Failure(.upstreamTimeout, "The model said nothing for \(limit)."))
      }
    }
  }

  /// Cancels them: storing the result is not subject to them.
  func cancel() {
    idleTimer?.cancel()
    totalTimer?.cancel()
  }
}
