import CLinux
import Glibc

/// What a descriptor is watched for, and what it was found ready for (epoll_ctl(2)).
///
/// Not an `OptionSet`: outside this module its operations would be looked up at run time, for each event.
package struct Readiness: Sendable {
  @usableFromInline let events: UInt32
  @inlinable init(events: UInt32) { self.events = events }

  @inlinable package static var none: Readiness { Readiness(events: 0) }
  @inlinable package static var readable: Readiness { Readiness(events: EPOLLIN.rawValue) }
  @inlinable package static var writable: Readiness { Readiness(events: EPOLLOUT.rawValue) }
  /// The peer has closed its sending side, or all of the connection.
  @inlinable package static var peerClosed: Readiness { Readiness(events: EPOLLRDHUP.rawValue) }
  /// Both sides are closed. Always reported, asked for or not.
  @inlinable package static var hangup: Readiness { Readiness(events: EPOLLHUP.rawValue) }
  /// An error is pending, or the reader of a pipe is gone. Always reported, asked for or not.
  @inlinable package static var error: Readiness { Readiness(events: EPOLLERR.rawValue) }
  /// Report a change once, not for as long as it lasts.
  @inlinable package static var edgeTriggered: Readiness { Readiness(events: 1 << 31) }

  /// Both together.
  @inlinable package static func | (left: Readiness, right: Readiness) -> Readiness {
    Readiness(events: left.events | right.events)
  }

  /// Whether all of `others` are among these.
  @inlinable package func contains(_ others: Readiness) -> Bool { events & others.events == others.events }

  /// Whether any of `others` is among these.
  @inlinable package func contains(anyOf others: Readiness) -> Bool { events & others.events != 0 }
}

/// The registration of one descriptor with a ``Reactor``. It does not own the descriptor: cancel it before closing.
package final class Watch {
  let number: CInt
  let generation: UInt32
  fileprivate var handler: ((Readiness) -> Void)?
  fileprivate weak var reactor: Reactor?

  fileprivate init(
    number: CInt, generation: UInt32, reactor: Reactor, handler: @escaping (Readiness) -> Void
  ) {
    self.number = number
    self.generation = generation
    self.reactor = reactor
    self.handler = handler
  }

  /// Changes what the descriptor is watched for.
  package func change(to interest: Readiness) throws(SystemError) {
    guard handler != nil, let reactor else { return }
    try reactor.control(EPOLL_CTL_MOD, self, interest)
  }

  /// Ends it: the handler is not called again, not even for an event that the kernel has reported already.
  package func cancel() {
    guard handler != nil else { return }
    handler = nil
    reactor?.forget(self)
  }
}

/// Something that gathers output and sends it once what happens now is over: see ``Reactor/scheduleFlush(_:)``.
package protocol Flushable: AnyObject {
  /// Sends what was gathered, as far as that is possible without waiting.
  func flushPending()
}

/// The part of an event loop that belongs to its thread: descriptors, timers, and the tasks that run there.
///
/// A reactor is not `Sendable`, and neither is anything that holds one: the compiler keeps it on the loop where it
/// was handed out. Other threads reach it through ``EventLoop/execute(_:)``.
@safe
package final class Reactor {
  /// The loop that runs this reactor, for handing to other threads.
  package let loop: EventLoop

  private let epoll: Descriptor
  private let clock: LoopClock
  private var cachedNow: LoopClock.Instant
  private let timers = Timers()
  /// By descriptor number. A generation tells an old event from a new registration under the same number.
  private var watches: [Watch?] = []
  private var nextGeneration: UInt32 = 0
  /// What is to be flushed after the present event: nearly always one. Apart from the others because an access to an
  /// array in a class is checked for exclusivity at run time, and this comes with every token.
  private var unflushed: (any Flushable)?
  private var moreUnflushed: [any Flushable] = []
  /// With their owners, which stay for as long: another at the same address would inherit what is not its own.
  private var attachments: [ObjectIdentifier: (owner: AnyObject, attachment: AnyObject)] = [:]

  init(loop: EventLoop, clock: LoopClock) throws(SystemError) {
    self.loop = loop
    self.clock = clock
    self.cachedNow = clock.now
    self.epoll = try Descriptor(epoll_create1(CInt(EPOLL_CLOEXEC)), from: "epoll_create1")
  }

  // MARK: Time

  /// The instant at which this turn of the loop began to handle events. Reading it costs nothing.
  package var now: LoopClock.Instant { cachedNow }

  /// Calls `handler` on this loop once `delay` has passed, unless the timer is cancelled before.
  package func schedule(after delay: Duration, _ handler: @escaping () -> Void) -> Timer {
    timers.add(at: clock.now + delay, handler)
  }

  /// How many timers are pending: a leak check for tests.
  package var pendingTimers: Int { timers.count }

  /// How many descriptors are watched: a leak check for tests.
  package var watchedDescriptors: Int { watches.reduce(0) { $0 + ($1 == nil ? 0 : 1) } }

  // MARK: Descriptors

  /// Watches an open descriptor and calls `handler` on this loop whenever it is ready.
  ///
  /// - Throws: the `errno` of epoll_ctl(2): `EPERM` for a regular file, `ENOSPC` beyond `max_user_watches`.
  package func watch(
    _ number: CInt, for interest: Readiness, _ handler: @escaping (Readiness) -> Void
  ) throws(SystemError) -> Watch {
    nextGeneration &+= 1
    let watch = Watch(number: number, generation: nextGeneration, reactor: self, handler: handler)
    try control(EPOLL_CTL_ADD, watch, interest)
    let index = Int(number)
    if index >= watches.count {
      watches.append(contentsOf: repeatElement(nil, count: index + 1 - watches.count))
    }
    watches[index] = watch
    return watch
  }

  fileprivate func control(_ operation: CInt, _ watch: Watch, _ interest: Readiness) throws(SystemError) {
    var event = unsafe epoll_event()
    unsafe event.events = interest.events
    unsafe event.data.u64 = UInt64(watch.generation) << 32 | UInt64(UInt32(watch.number))
    guard unsafe epoll_ctl(epoll.number, operation, watch.number, &event) == 0 else {
      throw SystemError("epoll_ctl of descriptor \(watch.number)")
    }
  }

  fileprivate func forget(_ watch: Watch) {
    watches[Int(watch.number)] = nil
    epoll_ctl(epoll.number, EPOLL_CTL_DEL, watch.number, nil)
  }

  // MARK: Output

  /// Has `output` flushed as soon as the present event has been handled, so that everything that one read brought
  /// goes out in one write. To be asked once for each flush.
  package func scheduleFlush(_ output: any Flushable) {
    if unflushed == nil { unflushed = output } else { moreUnflushed.append(output) }
  }

  func flushAll() {
    while let output = unflushed {
      unflushed = moreUnflushed.isEmpty ? nil : moreUnflushed.removeLast()
      output.flushPending()
    }
  }

  // MARK: Tasks

  /// Starts a task that runs on this loop's thread and nowhere else.
  ///
  /// The body may use what belongs to the loop, which `Task {}` would not allow.
  @discardableResult
  package func spawn(_ body: @escaping () async -> Void) -> Task<Void, Never> {
    // Safe: the body is made on this loop's thread and, with the loop as its preferred executor, is run and
    // released there too.
    let bound = unsafe LoopBound(body)
    return Task(executorPreference: loop) { await bound.value() }
  }

  /// An object that lives as long as this loop, one for each `owner`: how a generator keeps its connections.
  package func attachment<Attachment: AnyObject, Failure: Error>(
    for owner: AnyObject, make: () throws(Failure) -> Attachment
  ) throws(Failure) -> Attachment {
    let key = ObjectIdentifier(owner)
    if let found = attachments[key]?.attachment as? Attachment { return found }
    let made = try make()
    attachments[key] = (owner, made)
    return made
  }

  /// Lets go what was attached: it may hold this reactor.
  func detachAll() { attachments = [:] }

  // MARK: The loop's own

  /// Waits for events and handles them: one turn of the loop.
  ///
  /// - Parameter events: room for what one epoll_wait(2) reports. It is the loop's, not a property of this class,
  ///   because each access to such a property is checked for exclusivity, and these come with every event.
  @unsafe func turn(mayWait: Bool, _ events: inout [epoll_event]) {
    var timeout: CInt = mayWait ? -1 : 0
    if mayWait, let next = timers.next {
      timeout = CInt(clamping: max(0, (next - clock.now).roundedUpMilliseconds))
    }
    let count = unsafe epoll_wait(epoll.number, &events, CInt(events.count), timeout)
    cachedNow = clock.now
    // EINTR is the only error that can come here, and a turn without events is its answer.
    for index in 0..<max(0, Int(count)) {
      let event = unsafe events[index]
      let key = unsafe event.data.u64
      let number = Int(UInt32(truncatingIfNeeded: key))
      guard number < watches.count, let watch = watches[number], watch.generation == UInt32(key >> 32) else {
        continue
      }
      watch.handler?(Readiness(events: unsafe event.events))
      if unflushed != nil { flushAll() }
    }
    timers.fire(at: cachedNow)
    if unflushed != nil { flushAll() }
  }
}

/// Carries a value that belongs to a loop through a place that asks for `Sendable`, to code that runs on that loop.
///
/// Unsafe to make: the maker says why the value is touched and released on the loop's thread only.
@unsafe
package struct LoopBound<Value>: @unchecked Sendable {
  @safe package let value: Value
  @unsafe package init(_ value: Value) { self.value = value }
}
