import EventLoop
import Synchronization

/// A watchdog for event loops: each loop must run at least once between two beats. Belongs to the loop that calls
/// ``beat()``.
final class Watchdog {
  /// The last beat that a loop responded to.
  private final class Pulse: Sendable {
    let lastBeat = Atomic(0)
  }

  private let loops: [(loop: EventLoop, pulse: Pulse)]
  private var beats = 0

  init(_ loops: [EventLoop]) { self.loops = loops.map { ($0, Pulse()) } }

  /// Sends a beat to every loop.
  ///
  /// - Returns: whether every loop has responded to the previous beat; true for the first beat.
  func beat() -> Bool {
    let isAlive = loops.allSatisfy { $0.pulse.lastBeat.load(ordering: .relaxed) == beats }
    beats += 1
    for (loop, pulse) in loops {
      let beat = beats
      loop.execute { _ in pulse.lastBeat.store(beat, ordering: .relaxed) }
    }
    return isAlive
  }
}
