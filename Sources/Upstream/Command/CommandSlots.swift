import EventLoop

/// The right to run one command, released with this object.
package final class CommandSlot: Sendable {
  private let slots: CommandSlots

  fileprivate init(_ slots: CommandSlots) { self.slots = slots }

  deinit { slots.release() }
}

/// The commands that run at the same time in this process, and those that wait for their turn, in order. Thread-safe.
package final class CommandSlots: Sendable {
  private struct Waiting {
    let id: Int
    let limit: Int
    let start: @Sendable (CommandSlot) -> Void
  }

  private struct State {
    var running = 0
    var waiting: [Waiting] = []
    var nextID = 0
  }

  private let state = Locked(State())

  package init() {}

  /// The number of commands that run, including those that are being killed.
  package var running: Int { state.withLock(\.running) }

  /// The number of requests that wait for a slot.
  package var waiting: Int { state.withLock { $0.waiting.count } }

  /// The result of a request for a slot.
  package enum Admission {
    case admitted(CommandSlot)
    /// The request waits. The id withdraws it.
    case waiting(id: Int)
  }

  /// Requests a slot.
  ///
  /// - Parameters:
  ///   - limit: the number of commands that run at the same time. Requests can have different limits, and keep their order.
  ///   - start: called once with the slot, on any thread, if the request had to wait.
  package func request(limit: Int, _ start: @escaping @Sendable (CommandSlot) -> Void) -> Admission {
    let id: Int? = state.withLock { state in
      if state.waiting.isEmpty, state.running < limit {
        state.running += 1
        return nil
      }
      state.nextID += 1
      state.waiting.append(Waiting(id: state.nextID, limit: limit, start: start))
      return state.nextID
    }
    return id.map { .waiting(id: $0) } ?? .admitted(CommandSlot(self))
  }

  /// Withdraws a request that waits. Has no effect if it has its slot.
  package func withdraw(_ id: Int) {
    state.withLock { $0.waiting.removeAll { $0.id == id } }
    // The next one can have a higher limit.
    startNext()
  }

  fileprivate func release() {
    state.withLock { $0.running -= 1 }
    startNext()
  }

  private func startNext() {
    while let next = dequeue() { next.start(CommandSlot(self)) }
  }

  private func dequeue() -> Waiting? {
    state.withLock { state in
      guard let first = state.waiting.first, state.running < first.limit else { return nil }
      state.running += 1
      return state.waiting.removeFirst()
    }
  }
}
