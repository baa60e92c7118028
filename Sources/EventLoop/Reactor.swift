import CLinux
import Glibc

/// An object that handles the events of a descriptor, on the loop's thread.
package protocol ReadinessHandler: AnyObject {
  /// Called whenever the descriptor is ready.
  func handleReadiness(_ ready: Readiness)
}

/// The registration of one descriptor with a ``Reactor``. It does not own the descriptor: cancel it before closing.
package final class Watch {
  let number: CInt
  let generation: UInt32
  private var isActive = true
  /// The handler of a registration with a closure.
  private let closureHandler: ClosureHandler?
  private weak var reactor: Reactor?

  fileprivate init(number: CInt, generation: UInt32, reactor: Reactor, closureHandler: ClosureHandler?) {
    self.number = number
    self.generation = generation
    self.reactor = reactor
    self.closureHandler = closureHandler
  }

  /// Changes the events that the descriptor is watched for.
  package func change(to interest: Readiness) throws(SystemError) {
    guard isActive, let reactor else { return }
    try reactor.control(EPOLL_CTL_MOD, self, interest)
  }

  /// Gives up a registration that the kernel refused.
  fileprivate func discard() { isActive = false }

  /// Cancels the registration. The handler is not called again, not even for an event that the kernel has already
  /// reported.
  package func cancel() {
    guard isActive else { return }
    isActive = false
    reactor?.removeWatch(self)
  }

  /// Cancels the registration like ``cancel()``, without a system call. Closing the descriptor removes it from the epoll
  /// instance; events until then are ignored. It must be edge-triggered, and must not be watched again.
  package func cancelBeforeClose() {
    guard isActive else { return }
    isActive = false
    reactor?.removeRegistration(of: self)
  }

  deinit { cancel() }
}

private final class ClosureHandler: ReadinessHandler {
  let closure: (Readiness) -> Void
  init(_ closure: @escaping (Readiness) -> Void) { self.closure = closure }
  func handleReadiness(_ ready: Readiness) { closure(ready) }
}

/// An object that buffers output and sends it after the current event: see ``Reactor/scheduleFlush(_:)``.
package protocol Flushable: AnyObject {
  /// Sends the buffered output, as far as that is possible without waiting.
  func flushPending()
}

/// The part of an event loop that is confined to its thread: descriptors, timers and the tasks that run there.
///
/// A reactor is not `Sendable`, and neither is any type that holds one, so the compiler confines it to its loop. Other
/// threads reach it through ``EventLoop/execute(_:)``.
@safe
package final class Reactor {
  /// The loop that runs this reactor. It can be passed to other threads.
  package let loop: EventLoop

  /// The buffer of every recv(2) on this loop.
  package let receiveBuffer = ReceiveBuffer()

  private let epoll: Descriptor
  private let clock: LoopClock
  private var cachedNow: LoopClock.Instant
  private let timers = Timers()
  /// A registration. The handler is unowned, because it owns its watch.
  private struct Registration {
    var generation: UInt32 = 0
    unowned(unsafe) var handler: (any ReadinessHandler)?
  }

  /// The registrations by descriptor number. A generation distinguishes a stale event from a new registration with the
  /// same number.
  private var registrations: [Registration] = []
  private var nextGeneration: UInt32 = 0
  /// The number of registrations.
  private var openDescriptors = 0
  /// Nil if the loop does not coalesce events.
  private var coalescing: Coalescing?
  /// The output to flush after the current event; there is rarely more than one. Separate from the others because every
  /// access to an array in a class is checked for exclusivity at run time, and this one occurs for every token.
  private var unflushed: (any Flushable)?
  private var moreUnflushed: [any Flushable] = []
  /// The attachments by owner. The owners are retained, because an object allocated at the same address would otherwise
  /// receive the attachment of its predecessor.
  private var attachments: [ObjectIdentifier: (owner: AnyObject, attachment: AnyObject)] = [:]

  init(loop: EventLoop, clock: LoopClock, coalescesEvents: Bool) throws(SystemError) {
    self.loop = loop
    self.clock = clock
    self.cachedNow = clock.now
    self.coalescing = coalescesEvents ? Coalescing(at: clock.now) : nil
    self.epoll = try Descriptor(epoll_create1(CInt(EPOLL_CLOEXEC)), from: "epoll_create1")
  }

  // MARK: Time

  /// The instant at which this turn of the loop started to handle events. Reading it is free.
  package var now: LoopClock.Instant { cachedNow }

  /// Calls `handler` on this loop once `delay` has passed, unless the timer is cancelled first.
  package func schedule(after delay: Duration, _ handler: @escaping () -> Void) -> Timer {
    timers.add(at: clock.now + delay, handler)
  }

  /// The number of pending timers, for leak checks in tests.
  package var pendingTimers: Int { timers.count }

  /// The number of watched descriptors, for leak checks in tests.
  package var watchedDescriptors: Int { openDescriptors }

  // MARK: Descriptors

  /// Watches an open descriptor and calls `handler` on this loop whenever it is ready.
  ///
  /// - Throws: the `errno` of epoll_ctl(2): `EPERM` for a regular file, `ENOSPC` beyond `max_user_watches`.
  package func watch(
    _ number: CInt, for interest: Readiness, _ handler: @escaping (Readiness) -> Void
  ) throws(SystemError) -> Watch {
    let handler = ClosureHandler(handler)
    return try watch(number, for: interest, handler, retained: handler)
  }

  /// Watches an open descriptor like ``watch(_:for:_:)``, with an object as the handler.
  ///
  /// - Parameter handler: not retained: it must own the registration, which ends with it.
  package func watch(
    _ number: CInt, for interest: Readiness, handler: any ReadinessHandler
  ) throws(SystemError) -> Watch {
    try watch(number, for: interest, handler, retained: nil)
  }

  private func watch(
    _ number: CInt, for interest: Readiness, _ handler: any ReadinessHandler, retained: ClosureHandler?
  ) throws(SystemError) -> Watch {
    nextGeneration &+= 1
    let watch = Watch(number: number, generation: nextGeneration, reactor: self, closureHandler: retained)
    do throws(SystemError) { try control(EPOLL_CTL_ADD, watch, interest) } catch {
      watch.discard()
      throw error
    }
    let index = Int(number)
    // One by one: Swift 6.3 cannot represent an optional of this struct, which iterators return.
    while index >= registrations.count { registrations.append(Registration()) }
    // Safe: the handler owns the watch, or the watch owns the handler. The registration is removed with the watch.
    openDescriptors += 1
    registrations[index] = Registration(generation: nextGeneration, handler: handler)
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

  fileprivate func removeWatch(_ watch: Watch) {
    removeRegistration(of: watch)
    epoll_ctl(epoll.number, EPOLL_CTL_DEL, watch.number, nil)
  }

  fileprivate func removeRegistration(of watch: Watch) {
    openDescriptors -= 1
    // The number can already belong to another registration if the descriptor was closed first.
    let index = Int(watch.number)
    if registrations[index].generation == watch.generation { registrations[index] = Registration() }
  }

  // MARK: Output

  /// Flushes `output` as soon as the current event has been handled, so that all output that results from one read is
  /// sent in one write. Call it once per flush.
  package func scheduleFlush(_ output: any Flushable) {
    if unflushed == nil { unflushed = output } else { moreUnflushed.append(output) }
  }

  func flushAll() {
    while let output = unflushed {
      unflushed = moreUnflushed.isEmpty ? nil : moreUnflushed.removeLast()
      output.flushPending()
    }
  }

  /// The storage that ``takeBuffer()`` returns next.
  private var spareBuffer: [UInt8] = []
  private static let maximumSpareCapacity = 16 * 1024

  /// Returns an empty buffer, with the storage that was last kept.
  package func takeBuffer() -> [UInt8] { exchange(&spareBuffer, with: []) }

  /// Keeps the storage of a buffer, whose content is discarded, for the next ``takeBuffer()``.
  package func keepBuffer(_ buffer: consuming [UInt8]) {
    guard buffer.capacity <= Self.maximumSpareCapacity else { return }
    buffer.removeAll(keepingCapacity: true)
    spareBuffer = buffer
  }

  // MARK: Tasks

  /// Starts a task that runs only on this loop's thread.
  ///
  /// The body can use values that are confined to the loop, which `Task {}` would not allow.
  @discardableResult
  package func spawn(_ body: @escaping () async -> Void) -> Task<Void, Never> {
    // Safe: the body is created on this loop's thread. With the loop as its preferred executor, it also runs and is
    // released there.
    let bound = unsafe LoopBound(body)
    return Task(executorPreference: loop) { await bound.value() }
  }

  /// Returns the object attached to `owner`, created on first use and retained until ``detach(_:)``.
  /// Generators store their connections this way.
  package func attachment<Attachment: AnyObject, Failure: Error>(
    for owner: AnyObject, make: () throws(Failure) -> Attachment
  ) throws(Failure) -> Attachment {
    let key = ObjectIdentifier(owner)
    if let found = attachments[key]?.attachment as? Attachment { return found }
    let created = try make()
    attachments[key] = (owner, created)
    return created
  }

  /// Returns the object attached to `owner`; nil if there is none.
  package func attachment<Attachment: AnyObject>(of owner: AnyObject) -> Attachment? {
    attachments[ObjectIdentifier(owner)]?.attachment as? Attachment
  }

  /// Releases the object attached to `owner`.
  package func detach(_ owner: AnyObject) { attachments[ObjectIdentifier(owner)] = nil }

  /// Releases the attachments, which can hold references to this reactor.
  func detachAll() { attachments = [:] }

  // MARK: Event handling

  /// Runs one turn of the loop: waits for events and handles them.
  ///
  /// - Parameter events: a buffer for the events of one epoll_wait(2). The loop owns it, because every access to a
  ///   property of this class is checked for exclusivity, and these accesses occur for every event.
  @unsafe func runTurn(canBlock: Bool, _ events: inout [epoll_event]) {
    var timeout: CInt = canBlock ? -1 : 0
    if canBlock, let next = timers.next {
      timeout = CInt(clamping: max(0, (next - clock.now).roundedUpMilliseconds))
    }
    if canBlock, timeout != 0, coalescing?.isActive == true {
      var time = timespec(tv_sec: 0, tv_nsec: Coalescing.sleepNanoseconds)
      unsafe nanosleep(&time, nil)
    }
    let count = unsafe epoll_wait(epoll.number, &events, CInt(events.count), timeout)
    cachedNow = clock.now
    if canBlock { coalescing?.record(events: max(0, Int(count)), descriptors: openDescriptors, at: cachedNow) }
    // EINTR is the only possible error; it results in a turn without events.
    for index in 0..<max(0, Int(count)) {
      let event = unsafe events[index]
      let key = unsafe event.data.u64
      let number = Int(UInt32(truncatingIfNeeded: key))
      guard number < registrations.count, registrations[number].generation == UInt32(key >> 32) else { continue }
      // A registration that has been removed has no handler. This reference keeps it alive while it handles the event.
      guard let handler = unsafe registrations[number].handler else { continue }
      handler.handleReadiness(Readiness(events: unsafe event.events))
      if unflushed != nil { flushAll() }
    }
    timers.fire(at: cachedNow)
    if unflushed != nil { flushAll() }
  }
}

/// A wrapper that passes a value confined to a loop through a `Sendable` requirement, to code that runs on that loop.
///
/// Creating one is unsafe: the creator must ensure that the value is accessed and released only on the loop's thread.
@unsafe
package struct LoopBound<Value>: @unchecked Sendable {
  @safe package let value: Value
  @unsafe package init(_ value: Value) { self.value = value }
}
