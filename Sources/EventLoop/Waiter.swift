/// Where one task of a loop waits until something happens there. Belongs to its loop.
///
/// A wake-up that comes before the wait is kept, so none is lost; one that nobody needed makes the next wait return
/// early, so whoever waits looks at its condition again.
@safe
public final class Waiter {
  private var continuation: UnsafeContinuation<Void, Never>?
  private var isWoken = false
  private let loop: EventLoop

  public init(_ reactor: Reactor) { self.loop = reactor.loop }

  /// Lets the waiting task go on, in this turn of the loop.
  public func wake() {
    if let continuation = unsafe continuation.take() {
      unsafe continuation.resume()
    } else {
      isWoken = true
    }
  }

  /// Waits for ``wake()``. The task's cancellation does not end it.
  public func wait() async {
    // Asked and registered within the continuation's body: nothing can come in between on this thread.
    unsafe await withUnsafeContinuation { continuation in
      if isWoken {
        isWoken = false
        unsafe continuation.resume()
      } else {
        precondition(unsafe self.continuation == nil, "two tasks wait in one place")
        unsafe self.continuation = continuation
      }
    }
  }

  /// Waits for ``wake()`` or for the task's cancellation.
  public func waitOrCancel() async {
    // Safe: the closure given to `execute` runs on the loop to which this waiter belongs.
    let bound = unsafe LoopBound(self)
    await withTaskCancellationHandler {
      await wait()
    } onCancel: { [loop] in
      loop.execute { _ in bound.value.wake() }
    }
  }
}

/// A queue with one reader, between what happens on a loop and a task that runs there. Belongs to its loop.
///
/// A pass through it costs a fifth of a microsecond, where an AsyncStream costs five.
public final class Mailbox<Element> {
  private var elements: [Element] = []
  private var head = 0
  private let waiter: Waiter

  public init(_ reactor: Reactor) { self.waiter = Waiter(reactor) }

  /// How many elements wait.
  public var count: Int { elements.count - head }

  /// The element that would be taken next, left where it is.
  public var first: Element? { head < elements.count ? elements[head] : nil }

  /// Adds an element and lets the reader go on.
  public func post(_ element: Element) {
    elements.append(element)
    waiter.wake()
  }

  /// The next element if one is there already.
  public func nextReady() -> Element? {
    guard head < elements.count else { return nil }
    let element = elements[head]
    head += 1
    if head == elements.count {
      elements.removeAll(keepingCapacity: elements.capacity <= 64)
      head = 0
    }
    return element
  }

  /// The next element, as soon as there is one.
  ///
  /// - Throws: `CancellationError` when the task is cancelled while nothing is there.
  public func next() async throws(CancellationError) -> Element {
    while true {
      if let element = nextReady() { return element }
      if Task.isCancelled { throw CancellationError() }
      await waiter.waitOrCancel()
    }
  }
}

extension Reactor {
  /// Waits for `delay` on this loop's clock.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before.
  public func sleep(for delay: Duration) async throws(CancellationError) {
    let waiter = Waiter(self)
    let timer = schedule(after: delay) { waiter.wake() }
    defer { timer.cancel() }
    while timer.isPending {
      if Task.isCancelled { throw CancellationError() }
      await waiter.waitOrCancel()
    }
  }
}
