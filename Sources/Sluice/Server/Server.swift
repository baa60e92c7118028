import EventLoop
import FastCGI
import Glibc

/// A running FastCGI server: listeners on the main loop, connections spread over all loops, an orderly end.
///
/// Belongs to the main loop.
final class Server {
  private let services: Services
  private let routes: RouteTable
  private let reactor: Reactor
  private var listeners: [Listener] = []
  private var signals: SignalWatch?
  private var workers: [Worker] = []
  private var nextWorker = 0
  private var drainTimer: Timer?
  private var watchdogTimer: Timer?
  private var watchdog: Watchdog?
  private var unsavedTimer: Timer?
  private var tidyTimer: Timer?
  private var memoryTimer: Timer?
  private var isTerminating = false
  private var isFinished = false

  /// The connections of one loop, as seen from the main one.
  private struct Worker {
    let loop: EventLoop
    let thread: LoopThread?
    let connections: Mailslot
  }

  /// Where a loop keeps its connection server: filled and used on that loop only.
  private final class Mailslot: Sendable {
    nonisolated(unsafe) var server: ConnectionServer?
  }

  init(_ services: Services, routes: RouteTable, on reactor: Reactor) {
    self.services = services
    self.routes = routes
    self.reactor = reactor
  }

  /// Starts the other loops and begins to accept.
  func start(_ sockets: [CInt], signals watched: [CInt]) throws(SystemError) {
    // Before anybody can ask for what an earlier process has left.
    services.unsaved.restore()
    addWorker(reactor.loop, thread: nil)
    for index in 1..<max(services.configuration.loops, 1) {
      let loop = try EventLoop(name: "loop \(index)")
      addWorker(loop, thread: try LoopThread(loop))
    }
    let log = services.log
    for socket in sockets {
      listeners.append(
        try Listener(
          Descriptor(owning: socket), on: reactor, budget: services.descriptors,
          onShortage: { [unowned self] in closeIdleConnections() },
          onError: { log.error("accept failed", ["error": .string($0.description)]) },
          onAccept: { [unowned self] in distribute($0) }))
    }
    signals = try SignalWatch(watched, on: reactor) { [unowned self] in handleSignal($0) }
    startWatchdog()
    retryUnsaved(after: .seconds(1))
    tidyUp()
    returnFreedMemory()
    ServiceManager.notify("READY=1")
    services.log.info(
      "ready",
      ["pid": .integer(Int(getpid())), "loops": .integer(workers.count), "version": .string(Application.version)])
  }

  private func addWorker(_ loop: EventLoop, thread: LoopThread?) {
    let slot = Mailslot()
    workers.append(Worker(loop: loop, thread: thread, connections: slot))
    let (services, routes) = (services, routes)
    loop.execute { reactor in
      let handler = RequestDispatcher(services, routes: routes, on: reactor)
      unsafe slot.server = ConnectionServer(
        reactor: reactor, limits: services.serverLimits,
        responder: { request, writer in handler.respond(request, writer) })
    }
  }

  private func closeIdleConnections() {
    for worker in workers {
      let slot = worker.connections
      worker.loop.execute { _ in unsafe slot.server?.closeIdle(4) }
    }
  }

  private func distribute(_ descriptor: consuming Descriptor) {
    let worker = workers[nextWorker % workers.count]
    nextWorker += 1
    let number = descriptor.release()
    let slot = worker.connections
    worker.loop.execute { _ in
      let descriptor = Descriptor(owning: number)
      unsafe slot.server?.serve(descriptor)
    }
  }

  // MARK: The end

  private func handleSignal(_ signal: CInt) {
    switch signal {
    case SIGHUP:
      // Tokens, keys and prompts are read again whenever they change; there is nothing else to reload.
      services.log.info("SIGHUP ignored: files reload automatically; restart to reload the environment")
    default: if services.isDraining { terminateStreams() } else { drain() }
    }
  }

  /// Begins no further stream and waits for those that run. Requests that still come are told so at once.
  func drain() {
    guard !services.isDraining else { return }
    ServiceManager.notify("STOPPING=1")
    services.log.info("draining", ["streams": .integer(services.generations.count)])
    services.beginDraining()
    for worker in workers {
      let slot = worker.connections
      worker.loop.execute { _ in unsafe slot.server?.drain() }
    }
    drainTimer = reactor.schedule(after: services.configuration.drainTimeout) { [unowned self] in terminateStreams() }
    waitUntilIdle()
  }

  /// Ends the streams that still run, each with its record.
  private func terminateStreams() {
    guard !isTerminating else { return }
    isTerminating = true
    services.generations.terminateAll(
      .failed(Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5))))
    drainTimer?.cancel()
    // Whoever does not even take the last record.
    drainTimer = reactor.schedule(after: .seconds(5)) { [unowned self] in finish() }
  }

  /// Waits until nothing is answered any more that was begun before.
  private func waitUntilIdle() {
    // Not before a moment has passed: a request may be on its way on a connection that was just accepted.
    _ = reactor.schedule(after: .milliseconds(100)) { [weak self] in
      guard let self else { return }
      let isIdle =
        services.generations.count == 0 && services.streamLimiter.streams == 0 && services.requestLimiter.streams == 0
      if isIdle { closeListeners() } else { waitUntilIdle() }
    }
  }

  /// What waits in the sockets' queues is the next process's, and what was accepted is still refused.
  private func closeListeners() {
    for listener in listeners { listener.stop() }
    waitForRefusals(until: reactor.now + .seconds(1))
  }

  private func waitForRefusals(until end: LoopClock.Instant) {
    // A request that was let in just before may have begun a stream.
    if services.generations.count > 0 || services.streamLimiter.streams > 0 { return waitUntilIdle() }
    if services.activity.count == 0 || reactor.now >= end { return finish() }
    _ = reactor.schedule(after: .milliseconds(20)) { [weak self] in self?.waitForRefusals(until: end) }
  }

  private func finish() {
    guard !exchange(&isFinished, with: true) else { return }
    // What could not even be ended has its outcome in the log all the same.
    for (id, user) in services.generations.running {
      services.log.info(
        "stream ended",
        ["stream": .string(id), "user": .string(user.name), "outcome": .string(Outcome.shutdown.rawValue)])
    }
    for listener in listeners { listener.stop() }
    services.log.info("stopped", ["streams": .integer(services.generations.count)])
    for worker in workers { worker.thread?.stop() }
    services.unsaved.persist()
    reactor.loop.stop()
  }

  /// Takes away, at the start and every ten minutes, what was kept for an hour.
  private func tidyUp() {
    let services = services
    services.pool.submit { services.store.removeExpiredReplays() }
    tidyTimer = reactor.schedule(after: .seconds(600)) { [unowned self] in tidyUp() }
  }

  private func returnFreedMemory() {
    memoryTimer = reactor.schedule(after: .seconds(1)) { [unowned self] in
      if services.freedMemory.isDue() { services.pool.submit { FreedMemory.returnToSystem() } }
      returnFreedMemory()
    }
  }

  /// Tries to store what could not be, ever more seldom as long as it fails.
  private func retryUnsaved(after delay: Duration) {
    unsavedTimer = reactor.schedule(after: delay) { [unowned self] in
      guard services.unsaved.count > 0 else { return retryUnsaved(after: .seconds(1)) }
      let services = services
      services.pool.submit { services.unsaved.retry() }
      retryUnsaved(after: min(delay * 2, .seconds(30)))
    }
  }

  private func startWatchdog() {
    guard let interval = ServiceManager.watchdogInterval else { return }
    let watchdog = watchdog ?? Watchdog(workers.map(\.loop))
    self.watchdog = watchdog
    watchdogTimer = reactor.schedule(after: interval) { [unowned self] in
      // A loop that stands still is for systemd to notice: it restarts the service.
      if watchdog.beat() { ServiceManager.notify("WATCHDOG=1") }
      startWatchdog()
    }
  }
}

extension Services {
  var serverLimits: ServerLimits {
    var limits = ServerLimits()
    limits.maximumBodyBytes = configuration.maximumBodyBytes
    limits.writeTimeout = configuration.writeTimeout
    limits.activity = activity
    limits.descriptors = descriptors
    let log = log
    limits.onError = { log.error("connection failed", ["error": .string($0.description)]) }
    return limits
  }
}
