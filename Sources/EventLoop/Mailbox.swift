/// A single-reader queue from event handlers on a loop to a task on that loop. Confined to its loop.
///
/// Inlinable, so that it is specialised at its point of use: unspecialised code costs five times as much.
package final class Mailbox<Element> {
  @usableFromInline var elements: [Element] = []
  @usableFromInline var head = 0
  @usableFromInline let waiter = Waiter()

  package init() {}

  /// The number of queued elements.
  @inlinable package var count: Int { elements.count - head }

  /// The element that would be dequeued next; it stays in the queue.
  @inlinable package var first: Element? { head < elements.count ? elements[head] : nil }

  /// Adds an element and wakes the reader.
  @inlinable
  package func post(_ element: Element) {
    elements.append(element)
    waiter.wake()
  }

  /// Dequeues and returns the next element, or nil if the queue is empty.
  @inlinable
  package func nextReady() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head]
    head += 1
    if head == elements.count {
      elements.removeAll(keepingCapacity: elements.capacity <= 64)
      head = 0
    } else if head >= 64, head * 2 >= elements.count {
      // A queue that never becomes empty must not retain dequeued elements.
      elements.removeSubrange(0..<head)
      head = 0
    }
    return element
  }

  /// Dequeues and returns the next element; waits if the queue is empty. Cancelling the task does not end the wait:
  /// post an element instead.
  @inlinable
  package func next() async -> Element {
    while true {
      if let element = nextReady() { return element }
      await waiter.wait()
    }
  }
}
