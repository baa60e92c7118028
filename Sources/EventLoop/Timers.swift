/// A handler scheduled for a later instant. Created by ``Reactor/schedule(after:_:)``; confined to its loop.
package final class Timer {
  /// The instant at which the timer is due.
  package let deadline: LoopClock.Instant

  fileprivate var handler: (() -> Void)?
  /// The position in the heap, or -1 if the timer is not pending.
  fileprivate var index = -1
  fileprivate weak var timers: Timers?

  fileprivate init(deadline: LoopClock.Instant, timers: Timers, handler: @escaping () -> Void) {
    self.deadline = deadline
    self.timers = timers
    self.handler = handler
  }

  /// Whether the timer has neither fired nor been cancelled.
  package var isPending: Bool { index >= 0 }

  /// Cancels the timer: the handler is released without being called. Cancelling twice is not an error.
  package func cancel() {
    guard isPending else { return }
    timers?.remove(self)
    handler = nil
  }
}

/// The pending timers of one loop: a binary heap in which every timer stores its position. A cancelled timer is removed
/// immediately, so ten thousand short streams do not leave ten thousand stale deadlines behind.
package final class Timers {
  private var heap: [Timer] = []

  package init() {}

  var count: Int { heap.count }

  /// The instant of the earliest deadline, or nil if no timer is pending.
  package var next: LoopClock.Instant? { heap.first?.deadline }

  package func add(at deadline: LoopClock.Instant, _ handler: @escaping () -> Void) -> Timer {
    let timer = Timer(deadline: deadline, timers: self, handler: handler)
    timer.index = heap.count
    heap.append(timer)
    siftUp(timer.index)
    return timer
  }

  /// Calls the handlers of all timers that are due at `now`, earliest first. A handler can add and cancel timers.
  package func fire(at now: LoopClock.Instant) {
    while let timer = heap.first, timer.deadline <= now {
      remove(timer)
      let handler = timer.handler.take()
      handler?()
    }
  }

  fileprivate func remove(_ timer: Timer) {
    let index = timer.index
    let last = heap.removeLast()
    timer.index = -1
    guard last !== timer else { return }
    heap[index] = last
    last.index = index
    siftDown(index)
    siftUp(last.index)
  }

  private func siftUp(_ start: Int) {
    var index = start
    while index > 0, case let parent = (index - 1) / 2, heap[index].deadline < heap[parent].deadline {
      exchange(index, parent)
      index = parent
    }
  }

  private func siftDown(_ start: Int) {
    var index = start
    while true {
      var least = index
      for child in [2 * index + 1, 2 * index + 2]
      where child < heap.count && heap[child].deadline < heap[least].deadline {
        least = child
      }
      guard least != index else { return }
      exchange(index, least)
      index = least
    }
  }

  private func exchange(_ a: Int, _ b: Int) {
    heap.swapAt(a, b)
    heap[a].index = a
    heap[b].index = b
  }
}
