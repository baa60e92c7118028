import CLinux
import Glibc

/// A thread pool for blocking work, such as reading a slow request or accessing a file.
///
/// The pool has as many threads as there is concurrent work, up to a limit, so that a hundred callers that occupy their
/// threads for seconds do not delay another one. A thread exits after ten seconds without work.
package final class BlockingPool: Sendable {
  private struct State: ~Copyable {
    var queue: [(@Sendable () -> Void)?] = []
    var head = 0
    var threads = 0
    var idle = 0
  }

  private let maximumThreads: Int
  private let state = Locked(State())
  private let available: Semaphore

  /// - Parameter maximumThreads: the maximum number of threads; further work is queued.
  package init(maximumThreads: Int = 256) {
    self.maximumThreads = maximumThreads
    self.available = Semaphore()
  }

  /// Runs `work` on a thread of the pool and returns its result.
  ///
  /// Cancelling the calling task does not cancel `work`, which always runs to completion.
  package func run<Success: Sendable, Failure: Error>(
    _ work: @escaping @Sendable () throws(Failure) -> Success
  ) async throws(Failure) -> Success {
    let result: Result<Success, Failure> = unsafe await withUnsafeContinuation { continuation in
      submit {
        let result = Result { () throws(Failure) in try work() }
        unsafe continuation.resume(returning: result)
      }
    }
    return try result.get()
  }

  /// Queues `work` to run on a thread of the pool.
  package func submit(_ work: @escaping @Sendable () -> Void) {
    let shouldStartThread = state.withLock { state in
      state.queue.append(work)
      let waiting = state.queue.count - state.head
      guard waiting > state.idle, state.threads < maximumThreads else { return false }
      state.threads += 1
      return true
    }
    available.signal()
    guard shouldStartThread else { return }
    do {
      try JoinableThread(name: "blocking") { self.runWorker() }.detach()
    } catch {
      // No thread could be started. Existing workers take the work; if there are none, the caller runs it.
      let isAlone = state.withLock { state in
        state.threads -= 1
        return state.threads == 0
      }
      if isAlone, let work = dequeue() { work() }
    }
  }

  private func dequeue() -> (@Sendable () -> Void)? {
    state.withLock { state in
      guard state.head < state.queue.count else { return nil }
      // Removing the closure from the queue releases its captures as soon as it has run.
      let work = state.queue[state.head].take()
      state.head += 1
      if state.head * 2 >= state.queue.count {
        state.queue.removeSubrange(0..<state.head)
        state.head = 0
      }
      return work
    }
  }

  private func runWorker() {
    while true {
      if let work = dequeue() {
        work()
        continue
      }
      state.withLock { $0.idle += 1 }
      let isSignalled = available.wait(seconds: 10)
      let shouldExit = state.withLock { state in
        state.idle -= 1
        // The worker must not exit if work arrived between the timeout and this lock.
        guard !isSignalled, state.head == state.queue.count else { return false }
        state.threads -= 1
        return true
      }
      if shouldExit { return }
    }
  }
}

/// A counting semaphore (sem_overview(7)).
@safe
private final class Semaphore: Sendable {
  // Safe: sem_t is designed for use by several threads; its address does not change until deinit.
  private nonisolated(unsafe) let raw = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

  init() { unsafe sem_init(raw, 0, 0) }

  func signal() { unsafe sem_post(raw) }

  /// Waits for a signal. Returns false if none arrives in time.
  func wait(seconds: Int) -> Bool {
    var deadline = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &deadline)
    deadline.tv_sec += seconds
    while unsafe sem_timedwait(raw, &deadline) != 0 {
      if errno != EINTR { return false }
    }
    return true
  }

  deinit {
    unsafe sem_destroy(raw)
    unsafe raw.deallocate()
  }
}
