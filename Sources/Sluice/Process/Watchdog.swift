import EventLoop
import Synchronization

/// Watches over event loops: each must take its turn between two beats. Belongs to the loop that calls ``beat()``.
final class Watchdog {
  /// What a loop has answered last.
  private final class Pulse: Sendable {
    let answered = Atomic(0)
  }

  private let loops: [(loop: EventLoop, pulse: Pulse)]
  private var beats = 0

  init(_ loops: [EventLoop]) { self.loops = loops.map { ($0, Pulse()) } }

  /// Asks every loop for a sign of life.
  ///
  /// - Returns: whether all of them have answered the last time. True at the first beat.
  func beat() -> Bool {
    let isAlive = loops.allSatisfy { $0.pulse.answered.load(ordering: .relaxed) == beats }
    beats += 1
    for (loop, pulse) in loops {
      let beat = beats
      loop.execute { _ in pulse.answered.store(beat, ordering: .relaxed) }
    }
    return isAlive
  }
}
