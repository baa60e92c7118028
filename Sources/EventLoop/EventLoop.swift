import CLinux
import Glibc

/// A thread that waits for events with epoll and runs tasks: the executor of every stream.
///
/// Start tasks with `Task(executorPreference: loop)` or, on the loop itself, with ``Reactor/spawn(_:)``. A task without
/// this preference resumes on Swift's global pool first, which costs two thread switches per `await`.
package final class EventLoop: TaskExecutor, Sendable {
  private struct Inbox: ~Copyable {
    var jobs: [UnownedJob] = []
    var calls: [@Sendable (Reactor) -> Void] = []
    /// Whether the loop will check the inbox without a wake-up, so that any number of deliveries wake it once.
    var isAwake = true
    var isStopped = false
  }

  private let inbox = Locked(Inbox())
  private let wakeup: Descriptor
  private let clock: LoopClock
  private let coalescesEvents: Bool
  /// Jobs that the loop's own thread has enqueued for this turn. Unlocked, because only that thread accesses them.
  private nonisolated(unsafe) var localJobs: [UnownedJob] = []

  /// The name of the thread, as displayed by `top -H`; at most 15 bytes are displayed.
  package let name: String

  /// Creates a loop that is not running yet.
  ///
  /// - Parameter coalescesEvents: whether the loop sleeps for 0.3 ms before it waits while thousands of events per
  ///   second arrive one by one, so that one wake-up handles several of them.
  /// - Throws: `EMFILE` or `ENFILE` when no descriptor is available.
  package init(
    name: String = "loop", clock: LoopClock = .continuous, coalescesEvents: Bool = false
  ) throws(SystemError) {
    self.coalescesEvents = coalescesEvents
    self.name = name
    self.clock = clock
    self.wakeup = try Descriptor(eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK)), from: "eventfd")
  }

  // MARK: From any thread

  /// Schedules a call of `body` with the reactor on the loop's thread. After ``stop()`` the call is discarded.
  package func execute(_ body: @escaping @Sendable (Reactor) -> Void) {
    let shouldWake = inbox.withLock { inbox in
      if inbox.isStopped { return false }
      inbox.calls.append(body)
      return !exchange(&inbox.isAwake, with: true)
    }
    if shouldWake { wake() }
  }

  package func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    if isCurrent {
      unsafe localJobs.append(job)
      return
    }
    let shouldWake = inbox.withLock { inbox in
      inbox.jobs.append(job)
      return !exchange(&inbox.isAwake, with: true)
    }
    if shouldWake { wake() }
  }

  /// Whether the caller runs on this loop's thread.
  package var isCurrent: Bool {
    unsafe clinux_current_loop() == UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque())
  }

  /// Makes ``run(_:)`` return after the current turn. Suspended tasks are never resumed: terminate them first.
  package func stop() {
    inbox.withLock { $0.isStopped = true }
    wake()
  }

  private func wake() {
    var one: UInt64 = 1
    unsafe write(wakeup.number, &one, 8)
  }

  // MARK: On the loop's thread

  /// Runs the loop on the calling thread until ``stop()``.
  ///
  /// - Parameter start: called once, on this thread, before the first turn.
  /// - Throws: the `errno` of epoll_create1(2) or epoll_ctl(2).
  package func run(_ start: (Reactor) -> Void = { _ in }) throws(SystemError) {
    let reactor = try Reactor(loop: self, clock: clock, coalescesEvents: coalescesEvents)
    unsafe clinux_set_current_loop(Unmanaged.passUnretained(self).toOpaque())
    defer { clinux_set_current_loop(nil) }
    let wakeup = wakeup.number
    let watch = try reactor.watch(wakeup, for: .readable) { _ in
      var count: UInt64 = 0
      unsafe read(wakeup, &count, 8)
    }
    defer {
      reactor.detachAll()
      watch.cancel()
    }
    start(reactor)

    var jobs: [UnownedJob] = []
    var calls: [@Sendable (Reactor) -> Void] = []
    var events = unsafe [epoll_event](repeating: epoll_event(), count: 256)
    while true {
      // Run everything that was delivered or became ready: the loop must block only when it is idle. `isAwake` is
      // cleared under the lock that a delivery takes, so no wake-up is lost. The bound keeps tasks that wake each other
      // from starving the descriptors.
      var isIdle = false
      for _ in 0..<32 where !isIdle {
        let isStopped = inbox.withLock { inbox in
          swap(&inbox.jobs, &jobs)
          swap(&inbox.calls, &calls)
          isIdle = unsafe localJobs.isEmpty && jobs.isEmpty && calls.isEmpty
          inbox.isAwake = !isIdle
          return inbox.isStopped
        }
        if isStopped { return }
        for call in calls { call(reactor) }
        calls.removeAll(keepingCapacity: true)
        perform(&jobs)
        unsafe swap(&localJobs, &jobs)
        perform(&jobs)
        reactor.flushAll()
      }
      unsafe reactor.runTurn(canBlock: isIdle, &events)
      if isIdle { inbox.withLock { $0.isAwake = true } }
    }
  }

  private func perform(_ jobs: inout [UnownedJob]) {
    for job in jobs { unsafe job.runSynchronously(on: asUnownedTaskExecutor()) }
    jobs.removeAll(keepingCapacity: true)
  }
}

/// A thread that runs an ``EventLoop`` until ``stop()``, which joins it.
package final class LoopThread: Sendable {
  package let loop: EventLoop
  private let thread: JoinableThread

  /// Starts a thread for `loop`.
  ///
  /// - Throws: `EAGAIN` when the system cannot create a thread.
  package init(_ loop: EventLoop) throws(SystemError) {
    self.loop = loop
    self.thread = try JoinableThread(name: loop.name) {
      do { try loop.run() } catch { fatalError("the event loop \(loop.name) cannot start: \(error)") }
    }
  }

  /// Stops the loop and waits until its thread has exited. Must not be called on the loop itself.
  package func stop() {
    loop.stop()
    thread.join()
  }
}
