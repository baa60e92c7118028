/// Where one task of a loop waits until something happens there. Belongs to its loop.
///
/// A wake-up that comes before the wait is kept, so none is lost; one that nobody needed makes the next wait return
/// early, so whoever waits looks at its condition again.
@safe
package final class Waiter {
  private var continuation: UnsafeContinuation<Void, Never>?
  private var isWoken = false

  package init() {}

  /// Lets the waiting task go on, in this turn of the loop.
  package func wake() {
    if let continuation = unsafe continuation.take() {
      unsafe continuation.resume()
    } else {
      isWoken = true
    }
  }

  /// Waits for ``wake()``. The task's cancellation does not end it: see ``Reactor/onCancel(_:while:)``.
  package func wait() async {
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
}

extension Reactor {
  /// Does `body`, and calls `cancel` on this loop, soon, if the task is cancelled meanwhile.
  ///
  /// A cancellation handler is registered once for all the waits in `body`, not for each.
  package func onCancel<Success, Failure: Error>(
    _ cancel: @escaping () -> Void, while body: () async throws(Failure) -> Success
  ) async throws(Failure) -> Success {
    // Safe: the closure given to `execute` runs on this loop, to which what `cancel` holds belongs.
    let bound = unsafe LoopBound(cancel)
    // withTaskCancellationHandler throws untyped.
    let result = await withTaskCancellationHandler {
      do throws(Failure) {
        return Result<Success, Failure>.success(try await body())
      } catch {
        return Result<Success, Failure>.failure(error)
      }
    } onCancel: { [loop] in
      loop.execute { _ in bound.value() }
    }
    return try result.get()
  }

  /// Waits as long as `condition` holds, looking whenever `waiter` is woken, for `limit` at most. The task's
  /// cancellation does not end it.
  package func wait(on waiter: Waiter, for limit: Duration, while condition: () -> Bool) async {
    let timer = schedule(after: limit) { waiter.wake() }
    defer { timer.cancel() }
    while timer.isPending, condition() { await waiter.wait() }
  }

  /// Waits for `delay` on this loop's clock.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before.
  package func sleep(for delay: Duration) async throws(CancellationError) {
    let waiter = Waiter()
    let timer = schedule(after: delay) { waiter.wake() }
    defer { timer.cancel() }
    let wake = { waiter.wake() }
    await onCancel(wake) {
      while timer.isPending, !Task.isCancelled { await waiter.wait() }
    }
    if Task.isCancelled { throw CancellationError() }
  }
}
