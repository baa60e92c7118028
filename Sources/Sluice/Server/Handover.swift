import EventLoop
import Glibc
import JSON

/// The change of the service from an earlier process to this one, and from this one to the next (SIGUSR2). Belongs to
/// the main loop.
final class Handover {
  private unowned let server: Server
  private let services: Services
  private let reactor: Reactor
  private let predecessor: Predecessor?
  private var successor: Successor?
  /// Whether the service manager knows this process as the main one.
  private var isMain = false

  init(of server: Server, _ services: Services, on reactor: Reactor) {
    self.server = server
    self.services = services
    self.reactor = reactor
    predecessor = Predecessor.inherited()
  }

  // MARK: From an earlier process

  /// Whether an earlier process still finishes its streams.
  var hasPredecessor: Bool { predecessor?.isRunning == true }

  /// Returns the listening sockets that the earlier process passes; nil if there is none.
  func passedSockets() throws(StartError) -> [ListeningSocket]? { try predecessor?.sockets() }

  /// Tells the earlier process to do what this one does.
  func forward(_ command: String) { predecessor?.send(command) }

  /// Takes over from the earlier process, which makes this one the main one.
  ///
  /// - Returns: false if there is none.
  func takeOver() throws(SystemError) -> Bool {
    guard let predecessor else { return false }
    let (services, loop, pass) = (services, reactor.loop, predecessor.pass)
    let bound = unsafe LoopBound(predecessor)
    services.earlierProcess.withLock {
      $0 = { request, object, user in
        await withCheckedContinuation { continuation in
          // Safe: `execute` runs the closure on the main loop, to which the predecessor belongs.
          loop.execute { _ in
            bound.value.ask(request, object, user: user.name) { continuation.resume(returning: $0) }
          }
        }
      }
    }
    services.passConnection.withLock { $0 = pass }
    try predecessor.takeOver(
      on: reactor, onServing: { [unowned self] in becomeMain() },
      onConnection: { [unowned self] in server.serve(Descriptor(owning: $0), received: $1) },
      onEnd: { [unowned self] in
        services.earlierProcess.withLock { $0 = nil }
        services.passConnection.withLock { $0 = nil }
        becomeMain()
        // What it could not store.
        services.pool.submit { services.unsaved.restore() }
      })
    return true
  }

  private func becomeMain() {
    if !exchange(&isMain, with: true) { server.becomeMain() }
  }

  // MARK: To the next process

  /// Starts the program again, and passes it the listening sockets. This process stops accepting connections as soon as
  /// the new one is ready, and ends with its last stream.
  func start(passing sockets: [ListeningSocket]) {
    guard successor == nil, !services.isDraining else {
      return services.log.warning(
        "upgrade ignored", ["reason": .string("an upgrade or the shutdown is in progress")])
    }
    do throws(SystemError) {
      let started = try Successor(passing: sockets, on: reactor) { [unowned self] in handle($0) }
      successor = started
      server.upgradeDidStart()
      services.log.info("upgrade started", ["pid": .integer(Int(started.pid))])
    } catch { fail("\(error)") }
  }

  private func handle(_ event: Successor.Event) {
    guard let successor else { return }
    switch event {
    case .ready:
      server.giveWay(to: successor.pid, passing: successor.pass)
      successor.send("serving")
    case .failed(let reason): fail(reason)
    case .message(let text): respond(to: text)
    case .connection(let number, let received): server.serve(Descriptor(owning: number), received: received)
    // The service manager starts the service again; this process still finishes its streams.
    case .ended: services.log.warning("the new process has ended")
    }
  }

  private func fail(_ reason: String) {
    server.upgradeDidFail(reason)
    // Later, because the successor may be on the call stack.
    _ = reactor.schedule(after: .zero) { [weak self] in self?.successor = nil }
  }

  /// Does what the successor asks for.
  private func respond(to text: String) {
    let words = text.split(separator: " ", maxSplits: 3).map(String.init)
    switch words.first {
    case "drain": server.drain()
    case "terminate": server.terminateStreams()
    case "stop": reply(to: words) { [services] in await services.stopStream($0, of: $1) }
    case "stop-session": reply(to: words) { [services] in await services.stopStreams(ofSession: $0, of: $1) }
    default: break
    }
  }

  private func reply(to words: [String], _ action: @escaping (String, User) async -> Bool) {
    guard words.count == 4, let user = User(words[3]) else { return }
    reactor.spawn { [weak self] in
      let isDone = await action(words[2], user)
      self?.successor?.send("reply \(words[1]) \(isDone ? 1 : 0)")
    }
  }
}
