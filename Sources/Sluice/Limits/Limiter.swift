import EventLoop

/// The right to one stream, given back when its owner lets it go.
final class StreamSlot: Sendable {
  private let release: @Sendable () -> Void

  init(release: @escaping @Sendable () -> Void) { self.release = release }

  deinit { release() }
}

/// A message that was counted, for taking it out of the count again.
enum CountedMessage: Sendable {
  case notLimited
  case inMemory
  /// With the time under which the store has it, in milliseconds since 1970.
  case inStore(Int)
}

/// How many streams there may be, of a user's and of all, and how many messages a user may send in an hour. Use it on
/// any thread.
final class Limiter: Sendable {
  private struct Counts {
    var all = 0
    var byUser: [User: Int] = [:]
  }

  private let counts = Locked(Counts())
  /// When messages were sent that the store could not count.
  private let inMemoryMessages = Locked<[User: [ContinuousClock.Instant]]>([:])
  private let log: Log
  private let store: Store
  /// Whether each stream has a process of its own, so that counting takes files.
  private let sharesSlots: Bool

  init(_ store: Store, sharesSlots: Bool, log: Log) {
    self.store = store
    self.log = log
    self.sharesSlots = sharesSlots
  }

  /// Lets a stream in.
  ///
  /// - Throws: ``Failure/Code/overloaded``, ``Failure/Code/tooManyStreams``.
  func acquireSlot(for user: User, _ configuration: Configuration) async throws(Failure) -> StreamSlot {
    if sharesSlots { return try await acquireSharedSlot(for: user, configuration) }
    let failure: Failure? = counts.withLock { counts in
      if Self.isReached(configuration.maximumStreams, by: counts.all) { return Self.overloaded }
      let own = counts.byUser[user, default: 0]
      if Self.isReached(configuration.streamsPerUser, by: own) { return Self.tooMany(configuration.streamsPerUser) }
      counts.all += 1
      counts.byUser[user] = own + 1
      return nil
    }
    if let failure { throw failure }
    return StreamSlot { [self] in
      counts.withLock { counts in
        counts.all -= 1
        let own = counts.byUser[user, default: 0] - 1
        counts.byUser[user] = own > 0 ? own : nil
      }
    }
  }

  /// Counts a message, in a window of an hour that slides.
  ///
  /// - Returns: what ``uncount(_:of:)`` takes when the request turns out not to be one.
  /// - Throws: ``Failure/Code/rateLimited``, with the time after which there is room again.
  func countMessage(of user: User, _ configuration: Configuration) async throws(Failure) -> CountedMessage {
    let limit = configuration.messagesPerHour
    guard limit > 0 else { return .notLimited }
    let wait: Duration
    do {
      switch try await store.countMessage(of: user, limit: limit) {
      case .counted(let time): return .inStore(time)
      case .full(let time): wait = time
      }
    } catch {
      // A disk that takes nothing is no reason to refuse, nor to let everything in: this process counts.
      log.warning("store unavailable; counting messages in memory", ["error": .string("\(error)")])
      guard let time = countInMemory(user, limit) else { return .inMemory }
      wait = time
    }
    throw Failure(.rateLimited, "The limit of \(limit) messages per hour has been reached.", retryAfter: wait)
  }

  /// Takes a message out of the count again: the request was not valid, or was answered before.
  func uncount(_ message: CountedMessage, of user: User) async {
    switch message {
    case .notLimited: break
    case .inMemory: inMemoryMessages.withLock { _ = $0[user]?.popLast() }
    case .inStore(let time):
      do { try await store.uncountMessage(of: user, at: time) } catch {
        log.warning("message could not be uncounted", ["error": .string("\(error)")])
      }
    }
  }

  private func countInMemory(_ user: User, _ limit: Int) -> Duration? {
    inMemoryMessages.withLock { inMemoryMessages in
      let now = ContinuousClock.now
      var recent = inMemoryMessages[user, default: []].filter { now - $0 < .seconds(3600) }
      defer { inMemoryMessages[user] = recent }
      if recent.count >= limit { return .seconds(3600) - (now - recent[recent.count - limit]) }
      recent.append(now)
      return nil
    }
  }

  /// How many streams are in.
  var streams: Int { counts.withLock { $0.all } }

  private func acquireSharedSlot(for user: User, _ configuration: Configuration) async throws(Failure) -> StreamSlot {
    do {
      guard let all = try await store.takeSlot(limit: configuration.maximumStreams) else { throw Self.overloaded }
      guard let own = try await store.takeSlot(of: user, limit: configuration.streamsPerUser) else {
        throw Self.tooMany(configuration.streamsPerUser)
      }
      return StreamSlot { withExtendedLifetime((all, own)) {} }
    } catch {
      throw error as? Failure ?? Failure(.storeFailed, "The stream limit could not be checked.", detail: "\(error)")
    }
  }

  private static func isReached(_ limit: Int, by count: Int) -> Bool { limit > 0 && count >= limit }

  private static let overloaded = Failure(
    .overloaded, "The server has reached its limit of concurrent streams.", retryAfter: .seconds(5))

  private static func tooMany(_ limit: Int) -> Failure {
    Failure(
      .tooManyStreams, "The limit of \(limit) concurrent requests per user has been reached.",
      retryAfter: .seconds(5))
  }
}
