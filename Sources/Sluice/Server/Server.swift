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
  private var memoryTimer: Timer?
  private var isTerminating = false
  private var isFinished = false
  /// The listening sockets, which ``listeners`` own.
  private var sockets: [ListeningSocket] = []
  /// The process that takes over from this one (SIGUSR2).
  private var successor: Successor?
  /// The time until which the web server may send a request on a connection that it keeps open, after a successor has
  /// taken over; nil before that.
  private var idleConnectionsEnd: LoopClock.Instant?

  /// More than nginx's default keepalive_timeout of an upstream (60 s), after which it closes such a connection.
  private static let idleConnectionTime: Duration = .seconds(75)
  /// The process from which this one takes over.
  private var predecessor: Predecessor?

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

    @unsafe func serve(_ descriptor: consuming Descriptor, _ kind: ListeningSocket.Kind) {
      switch kind {
      case .fastCGI: unsafe server?.serve(descriptor)
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
    predecessor = Predecessor.inherited()
    if let predecessor {
      sockets = try predecessor.sockets()
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
    returnFreedMemory()
    if predecessor == nil { becomeMain() } else { try takeOver() }
  }

  /// Reports that this process is the service's main process, and serves.
  private func becomeMain() {
    startWatchdog()
    ServiceManager.notify("READY=1")
    var fields: JSON.Members = [
      "pid": .integer(Int(getpid())), "loops": .integer(workers.count), "version": .string(Application.version),
    ]
    for (name, value) in services.summary { fields[name] = .string(value) }
    services.log.info("ready", fields)
  }

  private func addWorker(_ loop: EventLoop, thread: LoopThread?) {
    let holder = ConnectionServerHolder()
    workers.append(Worker(loop: loop, thread: thread, connections: holder))
    let (services, routes) = (services, routes)
    loop.execute { reactor in
      let handler = RequestDispatcher(services, routes: routes, on: reactor)
      unsafe holder.server = ConnectionServer(
        reactor: reactor, limits: services.serverLimits,
        responder: { request, writer in handler.respond(request, writer) })
      unsafe holder.webSockets = WebSocketServer(services, handler, on: reactor)
    }
  }

  private func closeIdleConnections() {
    for worker in workers {
      let holder = worker.connections
      worker.loop.execute { _ in unsafe holder.server?.closeIdle(4) }
    }
  }

  private func distribute(_ descriptor: consuming Descriptor, _ kind: ListeningSocket.Kind) {
    let worker = workers[nextWorker % workers.count]
    nextWorker += 1
    let holder = worker.connections
    if worker.thread == nil {
      // Safe: this is the loop of the worker.
      unsafe holder.serve(descriptor, kind)
      return
    }
    let number = descriptor.release()
    worker.loop.execute { _ in unsafe holder.serve(Descriptor(owning: number), kind) }
  }

  // MARK: Upgrade

  /// Starts the program again, and passes it the listening sockets. This process stops accepting connections as soon as
  /// the new one is ready, and ends with its last stream.
  private func startSuccessor() {
    guard successor == nil, !services.isDraining else {
      return services.log.warning("upgrade ignored", ["reason": .string("an upgrade or the shutdown is in progress")])
    }
    do throws(SystemError) {
      successor = try Successor(passing: sockets, on: reactor) { [unowned self] in handle($0) }
      services.log.info("upgrade started", ["pid": .integer(Int(successor?.pid ?? 0))])
    } catch { upgradeFailed("\(error)") }
  }

  private func handle(_ event: Successor.Event) {
    switch event {
    case .ready: giveWay()
    case .failed(let reason): upgradeFailed(reason)
    case .message(let text): answer(text)
    // systemd starts the service again; this process still finishes its streams.
    case .ended: services.log.warning("the new process has ended", [:])
    }
  }

  private func upgradeFailed(_ reason: String) {
    services.log.error("upgrade failed", ["reason": .string(reason), "pid": .integer(Int(getpid()))])
    ServiceManager.notify("STATUS=Upgrade failed: \(reason)")
    // Later: the handler of the successor may be running.
    _ = reactor.schedule(after: .zero) { [weak self] in self?.successor = nil }
  }

  private func giveWay() {
    guard let successor else { return }
    for listener in listeners { listener.stop() }
    // Before the new process notifies systemd, which only listens to the main process.
    ServiceManager.notify("MAINPID=\(successor.pid)")
    successor.send("serving")
    services.log.info(
      "replaced", ["pid": .integer(Int(successor.pid)), "streams": .integer(services.generations.count)])
    watchdogTimer?.cancel()
    closeConnections(includingIdle: false)
    idleConnectionsEnd = reactor.now + Self.idleConnectionTime
    // A stream that has just begun may last that long.
    finishStreams(within: services.configuration.streamTimeout + Self.idleConnectionTime)
  }

  /// Responds to a request of the successor.
  private func answer(_ text: String) {
    switch text {
    case "drain": return drain()
    case "terminate": return terminateStreams()
    default: break
    }
    let words = text.split(separator: " ", maxSplits: 3)
    guard words.count == 4, let user = User(String(words[3])) else { return }
    let (number, object) = (words[1], String(words[2]))
    let services = services
    switch words[0] {
    case "stop":
      reactor.spawn { [weak self] in
        let isDone = await services.stopStream(object, of: user)
        self?.successor?.send("reply \(number) \(isDone ? 1 : 0)")
      }
    case "stop-session":
      reactor.spawn { [weak self] in
        let isDone = await services.stopStreams(ofSession: object, of: user)
        self?.successor?.send("reply \(number) \(isDone ? 1 : 0)")
      }
    default: break
    }
  }

  /// Takes over from the process that has started this one.
  private func takeOver() throws(SystemError) {
    guard let predecessor else { return }
    let (services, loop) = (services, reactor.loop)
    let bound = unsafe LoopBound(predecessor)
    services.earlierProcess.withLock {
      $0 = { request, object, user in
        await withCheckedContinuation { continuation in
          // Safe: `execute` runs the closure on the main loop, to which the predecessor belongs.
          loop.execute { _ in bound.value.ask(request, object, user: user.name) { continuation.resume(returning: $0) } }
        }
      }
    }
    var isMain = false
    try predecessor.takeOver(
      on: reactor,
      onServing: { [unowned self] in
        isMain = true
        becomeMain()
      },
      onEnd: { [unowned self] in
        services.earlierProcess.withLock { $0 = nil }
        if !isMain { becomeMain() }
        // What it could not store.
        services.pool.submit { services.unsaved.restore() }
      })
  }

  // MARK: Shutdown

  private func handleSignal(_ signal: CInt) {
    switch signal {
    case SIGUSR2: startSuccessor()
    case SIGHUP:
      // Tokens, keys and prompts reload automatically when their files change; nothing else can be reloaded.
      services.log.info("SIGHUP ignored: files reload automatically; restart to reload the environment")
    default: if services.isDraining { terminateStreams() } else { drain() }
    }
  }

  /// Stops admitting streams and waits for the running ones. New requests are refused immediately, except on routes
  /// that are served while draining.
  func drain() {
    guard !services.isDraining else { return }
    predecessor?.send("drain")
    ServiceManager.notify("STOPPING=1")
    services.log.info("draining", ["streams": .integer(services.generations.count)])
    services.beginDraining()
    closeConnections(includingIdle: true)
    finishStreams(within: services.configuration.drainTimeout)
  }

  private func closeConnections(includingIdle: Bool) {
    for worker in workers {
      let holder = worker.connections
      worker.loop.execute { _ in
        unsafe holder.server?.drain(closesIdle: includingIdle)
        unsafe holder.webSockets?.drain()
      }
    }
  }

  private func finishStreams(within limit: Duration) {
    let isWaiting = drainTimer != nil
    drainTimer?.cancel()
    drainTimer = reactor.schedule(after: limit) { [unowned self] in terminateStreams() }
    if !isWaiting { waitUntilIdle() }
  }

  /// Terminates the streams that are still running, each with its terminal record.
  private func terminateStreams() {
    guard !isTerminating else { return }
    isTerminating = true
    predecessor?.send("terminate")
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
      let mayGetRequest = idleConnectionsEnd.map { reactor.now < $0 && services.activity.openConnections > 0 } ?? false
      let isIdle =
        !mayGetRequest && services.generations.count == 0 && services.streamLimiter.streams == 0
        && services.requestLimiter.streams == 0
        && services.transcripts.readers == 0 && predecessor?.isRunning != true
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

  private func returnFreedMemory() {
    memoryTimer = reactor.schedule(after: .seconds(1)) { [unowned self] in
      if services.freedMemory.isDue() { services.pool.submit { FreedMemory.returnToSystem() } }
      returnFreedMemory()
    }
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
