import EventLoop
import FastCGI
import Glibc
import JSON

/// A running FastCGI server, with listeners on the main loop, connections on all loops, and an orderly shutdown.
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
  private var replayTimer: Timer?
  private var periodicTimer: Timer?
  private var isTerminating = false
  /// The last status that was reported.
  private var status = ""
  /// The reason why the last upgrade failed.
  private var upgradeFailure: String?
  /// The reason why the last reload of the configuration failed.
  private var reloadFailure: String?
  private var isFinished = false
  /// The listening sockets, which ``listeners`` own.
  private var sockets: [ListeningSocket] = []
  private var handover: Handover?

  /// A loop and its connections, as seen from the main loop.
  private struct Worker {
    let loop: EventLoop
    let thread: LoopThread?
    let connections: ConnectionServerHolder
  }

  /// The holder of a connection server, which is set and used only on its own loop.
  private final class ConnectionServerHolder: Sendable {
    nonisolated(unsafe) var server: ConnectionServer?
    nonisolated(unsafe) var webSockets: WebSocketServer?

    nonisolated(unsafe) var dispatcher: RequestDispatcher?

    @unsafe func serve(_ descriptor: consuming Descriptor, _ kind: ListeningSocket.Kind, received: [UInt8]) {
      switch kind {
      case .fastCGI: unsafe server?.serve(descriptor, received: received)
      case .webSocket: unsafe webSockets?.serve(descriptor)
      }
    }
  }

  init(_ services: Services, routes: RouteTable, on reactor: Reactor) {
    self.services = services
    self.routes = routes
    self.reactor = reactor
  }

  /// Starts the other loops and accepts connections.
  func start(signals watched: [CInt]) throws(StartError) {
    do throws(SystemError) {
      // First, so that no signal is lost once a connection can be made: libfcgi installs a handler for SIGTERM that does
      // nothing, unless there is one.
      signals = try SignalWatch(watched, on: reactor) { [unowned self] in handleSignal($0) }
      ConnectionServer.initializeLibrary()
    } catch { throw StartError(message: "cannot start: \(error)") }
    let handover = Handover(of: self, services, on: reactor)
    self.handover = handover
    if let passed = try handover.passedSockets() {
      sockets = passed
    } else {
      sockets = try ListeningSocket.all(services.configuration)
    }
    do throws(SystemError) { try start() } catch { throw StartError(message: "cannot start: \(error)") }
  }

  private func start() throws(SystemError) {
    // Restore unsaved turns before requests can read their sessions.
    services.unsaved.restore()
    addWorker(reactor.loop, thread: nil)
    for index in 1..<max(services.configuration.loops, 1) {
      let loop = try EventLoop(
        name: "loop \(index)", coalescesEvents: services.configuration.coalescesEvents)
      addWorker(loop, thread: try LoopThread(loop))
    }
    let log = services.log
    for socket in sockets {
      if socket.kind == .webSocket { services.webSockets.setServed() }
      listeners.append(
        try Listener(
          Descriptor(owning: socket.number), on: reactor, budget: services.descriptors,
          onShortage: { [unowned self] in closeIdleConnections() },
          onError: { log.error("accept failed", ["error": .string($0.description)]) },
          onAccept: { [unowned self] in distribute($0, socket.kind) }))
    }
    retryUnsaved(after: .seconds(1))
    removeExpiredReplays()
    runPeriodically()
    if try handover?.takeOver() != true { becomeMain() }
  }

  /// Reports that this process is the service's main process, and serves.
  func becomeMain() {
    startWatchdog()
    ServiceManager.notify("READY=1")
    // The time of the watchdog goes on while processes take over from each other.
    ServiceManager.notify("WATCHDOG=1")
    var fields: JSON.Members = [
      "pid": .integer(Int(getpid())), "loops": .integer(workers.count), "version": .string(Application.version),
    ]
    fields.append(services.parts.summaryFields)
    services.log.info("ready", fields)
  }

  private func addWorker(_ loop: EventLoop, thread: LoopThread?) {
    let holder = ConnectionServerHolder()
    workers.append(Worker(loop: loop, thread: thread, connections: holder))
    let (services, routes) = (services, routes)
    loop.execute { reactor in
      let handler = RequestDispatcher(services, routes: routes, on: reactor)
      unsafe holder.dispatcher = handler
      unsafe holder.server = ConnectionServer(
        reactor: reactor, limits: services.serverLimits,
        responder: { request, writer in handler.respond(request, writer) })
      unsafe holder.webSockets = WebSocketServer(services, handler, on: reactor)
    }
  }

  private func closeIdleConnections() {
    onEachLoop { connections in unsafe connections.server?.closeIdle(4) }
  }

  /// Calls `body` on each loop with its connections.
  private func onEachLoop(_ body: @escaping @Sendable (ConnectionServerHolder) -> Void) {
    for worker in workers {
      let connections = worker.connections
      worker.loop.execute { _ in body(connections) }
    }
  }

  private func distribute(
    _ descriptor: consuming Descriptor, _ kind: ListeningSocket.Kind, received: [UInt8] = []
  ) {
    let worker = workers[nextWorker % workers.count]
    nextWorker += 1
    let holder = worker.connections
    if worker.thread == nil {
      // Safe: this is the loop of the worker.
      unsafe holder.serve(descriptor, kind, received: received)
      return
    }
    let number = descriptor.release()
    worker.loop.execute { _ in unsafe holder.serve(Descriptor(owning: number), kind, received: received) }
  }

  // MARK: Handover

  /// Stops accepting connections, because another process serves them. This process ends with its last stream.
  ///
  /// - Parameter pass: passes connections to that process.
  func giveWay(to pid: pid_t, passing pass: @escaping @Sendable (CInt, [UInt8]) -> Bool) {
    for listener in listeners { listener.stop() }
    // Before the new process notifies systemd, which only listens to the main process.
    ServiceManager.notify("MAINPID=\(pid)")
    services.log.info("replaced", ["pid": .integer(Int(pid)), "streams": .integer(services.generations.count)])
    watchdogTimer?.cancel()
    onEachLoop { connections in
      unsafe connections.server?.move(pass)
      unsafe connections.webSockets?.drain()
    }
    // A stream that has just begun may last that long.
    finishStreams(within: services.configuration.streamTimeout + .seconds(5))
  }

  func upgradeDidStart() {
    upgradeFailure = nil
    reportStatus()
  }

  /// Continues, because the program that should take over has failed.
  func upgradeDidFail(_ reason: String) {
    services.log.error("upgrade failed", ["reason": .string(reason), "pid": .integer(Int(getpid()))])
    upgradeFailure = reason
    reportStatus()
  }

  /// Serves a connection that another process passes on.
  ///
  /// - Parameter received: the bytes that it has read from it.
  func serve(_ descriptor: consuming Descriptor, received: [UInt8]) {
    guard services.descriptors.acquire(ConnectionServer.descriptorsPerConnection) else { return }
    distribute(descriptor, .fastCGI, received: received)
  }

  // MARK: Configuration

  /// Reads the configuration again, on a thread of the pool. If it is not valid, the earlier one remains in effect.
  private func reload() {
    ServiceManager.notify("RELOADING=1")
    // Safe: `execute` runs the closure on the main loop, to which the server belongs, while that loop runs.
    let bound = unsafe LoopBound(self)
    let (services, loop) = (services, reactor.loop)
    services.pool.submit {
      var issues: [ConfigurationError.Issue] = []
      do throws(ConfigurationError) { try services.reload() } catch { issues = error.issues }
      loop.execute { [issues] _ in bound.value.didReload(issues) }
    }
  }

  private func didReload(_ issues: [ConfigurationError.Issue]) {
    for issue in issues { services.log.error("reload failed", issue.fields) }
    reloadFailure = issues.isEmpty ? nil : issues.map(\.description).joined(separator: ", ")
    if issues.isEmpty { applyConfiguration() }
    ServiceManager.notify("READY=1")
    reportStatus()
  }

  /// Uses the services' current configuration for new requests.
  func applyConfiguration() {
    let limits = services.serverLimits
    onEachLoop { connections in
      unsafe connections.dispatcher?.reload()
      unsafe connections.server?.limits = limits
    }
    services.log.info("reloaded", services.parts.summaryFields)
  }

  // MARK: Shutdown

  private func handleSignal(_ signal: CInt) {
    switch signal {
    case SIGUSR2: handover?.start(passing: sockets)
    case SIGHUP: reload()
    default: if services.isDraining { terminateStreams() } else { drain() }
    }
  }

  /// Stops admitting streams and waits for the running ones. New requests are refused immediately, except on routes
  /// that are served while draining.
  func drain() {
    guard !services.isDraining else { return }
    handover?.forward("drain")
    // Otherwise systemd kills the process after TimeoutStopSec.
    let limit = services.configuration.drainTimeout + .seconds(10)
    ServiceManager.notify("STOPPING=1\nEXTEND_TIMEOUT_USEC=\(limit.roundedUpMilliseconds * 1000)")
    services.log.info("draining", ["streams": .integer(services.generations.count)])
    services.beginDraining()
    onEachLoop { connections in
      unsafe connections.server?.drain()
      unsafe connections.webSockets?.drain()
    }
    finishStreams(within: services.configuration.drainTimeout)
  }

  private func finishStreams(within limit: Duration) {
    let isWaiting = drainTimer != nil
    drainTimer?.cancel()
    drainTimer = reactor.schedule(after: limit) { [unowned self] in terminateStreams() }
    if !isWaiting { waitUntilIdle() }
  }

  /// Terminates the streams that are still running, each with its terminal record.
  func terminateStreams() {
    guard !isTerminating else { return }
    isTerminating = true
    handover?.forward("terminate")
    services.generations.terminateAll(
      .failed(Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5))))
    drainTimer?.cancel()
    // For clients that do not read the terminal record.
    drainTimer = reactor.schedule(after: .seconds(5)) { [unowned self] in finish() }
  }

  /// Waits until no response is in flight, then closes the listeners.
  private func waitUntilIdle() {
    // Delayed, because a request can be in flight on a connection that was just accepted.
    _ = reactor.schedule(after: .milliseconds(100)) { [weak self] in
      guard let self else { return }
      let isIdle =
        services.generations.count == 0 && services.streamLimiter.streams == 0 && services.requestLimiter.streams == 0
        && services.transcripts.readers == 0 && services.commands.running == 0 && handover?.hasPredecessor != true
      if isIdle { closeListeners() } else { waitUntilIdle() }
    }
  }

  /// Stops accepting connections and leaves those in the sockets' queues to the next process. Requests on connections
  /// that were already accepted are still refused.
  private func closeListeners() {
    for listener in listeners { listener.stop() }
    waitForRefusals(until: reactor.now + .seconds(1))
  }

  private func waitForRefusals(until end: LoopClock.Instant) {
    // A request that was admitted just before may have started a stream.
    if services.generations.count > 0 || services.streamLimiter.streams > 0 || services.transcripts.readers > 0 {
      return waitUntilIdle()
    }
    if (services.activity.count == 0 && services.webSockets.count == 0) || reactor.now >= end { return finish() }
    _ = reactor.schedule(after: .milliseconds(20)) { [weak self] in self?.waitForRefusals(until: end) }
  }

  private func finish() {
    guard !exchange(&isFinished, with: true) else { return }
    // Log an outcome even for streams that could not be terminated.
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

  /// Removes stored responses that are older than one hour, at startup and every ten minutes.
  private func removeExpiredReplays() {
    let services = services
    services.pool.submit { services.store.removeExpiredReplays() }
    replayTimer = reactor.schedule(after: .seconds(600)) { [unowned self] in removeExpiredReplays() }
  }

  /// Does every second what no event triggers.
  private func runPeriodically() {
    periodicTimer = reactor.schedule(after: .seconds(1)) { [unowned self] in
      if services.generations.count > 0 { services.pool.submit { [services] in services.endRevokedStreams() } }
      if services.freedMemory.isDue() { services.pool.submit { FreedMemory.returnToSystem() } }
      reportStatus()
      services.log.reportSuppressed()
      runPeriodically()
    }
  }

  /// Reports to `systemctl status`.
  private func reportStatus() {
    let unsaved = services.unsaved.count
    let parts = [
      "\(services.generations.count) streams", unsaved > 0 ? "\(unsaved) turns could not be stored yet" : nil,
      services.lastFailure.withLock(\.self).map { "last failure: \($0)" },
      upgradeFailure.map { "the last upgrade failed: \($0)" }, reloadFailure.map { "the last reload failed: \($0)" },
    ]
    let text = parts.compactMap(\.self).joined(separator: "; ")
    guard text != status else { return }
    status = text
    ServiceManager.notify("STATUS=\(text)")
  }

  /// Retries storing unsaved turns. The delay doubles, up to 30 seconds, as long as any of them remain.
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
      // If a loop is unresponsive, no keep-alive is sent, and systemd restarts the service.
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
