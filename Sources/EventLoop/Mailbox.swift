/// A queue with one reader, between what happens on a loop and a task that runs there. Belongs to its loop.
///
/// Inlinable, so that it is specialised where it is used: unspecialised it costs five times as much.
package final class Mailbox<Element> {
  @usableFromInline var elements: [Element] = []
  @usableFromInline var head = 0
  @usableFromInline let waiter = Waiter()

  package init() {}

  /// How many elements wait.
  @inlinable package var count: Int { elements.count - head }

  /// The element that would be taken next, left where it is.
  @inlinable package var first: Element? { head < elements.count ? elements[head] : nil }

  /// Adds an element and lets the reader go on.
  @inlinable
  package func post(_ element: Element) {
    elements.append(element)
    waiter.wake()
  }

  /// The next element if one is there already.
  @inlinable
  package func nextReady() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head]
    head += 1
    if head == elements.count {
      elements.removeAll(keepingCapacity: elements.capacity <= 64)
      head = 0
    } else if head >= 64, head * 2 >= elements.count {
      // A queue that never runs empty must not keep what was taken.
      elements.removeSubrange(0..<head)
      head = 0
    }
    return element
  }

  /// The next element, as soon as there is one. The task's cancellation does not end the wait: post something.
  @inlinable
  package func next() async -> Element {
    while true {
      if let element = nextReady() { return element }
      await waiter.wait()
    }
  }
}
