/// A wait point at which one task of a loop waits for an event on that loop. Confined to its loop.
///
/// A wake-up before the wait is stored, so none is lost. A wake-up that was not needed makes the next wait return
/// early, so the waiting task must check its condition again.
@safe
package final class Waiter {
  private var continuation: UnsafeContinuation<Void, Never>?
  private var isWoken = false

  package init() {}

  /// Resumes the waiting task in this turn of the loop, or makes the next wait return immediately.
  package func wake() {
    if let continuation = unsafe continuation.take() {
      unsafe continuation.resume()
    } else {
      isWoken = true
    }
  }

  /// Waits for ``wake()``. Cancelling the task does not end the wait: see ``Reactor/onCancel(_:while:)``.
  package func wait() async {
    // The check and the registration are both in the continuation's body: no code runs between them on this thread.
    unsafe await withUnsafeContinuation { continuation in
      if isWoken {
        isWoken = false
        unsafe continuation.resume()
      } else {
        precondition(unsafe self.continuation == nil, "two tasks wait on one Waiter")
        unsafe self.continuation = continuation
      }
    }
  }
}

extension Reactor {
  /// Runs `body`. If the task is cancelled in the meantime, schedules a call of `cancel` on this loop.
  ///
  /// One cancellation handler covers all the waits in `body`.
  package func onCancel<Success, Failure: Error>(
    _ cancel: @escaping () -> Void, while body: () async throws(Failure) -> Success
  ) async throws(Failure) -> Success {
    // Safe: the closure passed to `execute` runs on this loop, to which the values that `cancel` captures are confined.
    let bound = unsafe LoopBound(cancel)
    // withTaskCancellationHandler does not support typed throws, so a Result carries the error.
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

  /// Waits as long as `condition` holds, for at most `limit`. Checks the condition whenever `waiter` is woken.
  /// Cancelling the task does not end the wait.
  package func wait(on waiter: Waiter, for limit: Duration, while condition: () -> Bool) async {
    let timer = schedule(after: limit) { waiter.wake() }
    defer { timer.cancel() }
    while timer.isPending, condition() { await waiter.wait() }
  }

  /// Waits for `delay` on this loop's clock.
  ///
  /// - Throws: `CancellationError` if the task is cancelled first.
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
