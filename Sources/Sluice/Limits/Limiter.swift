import EventLoop

/// A slot for one stream, released with its last reference.
final class StreamSlot: Sendable {
  private let release: @Sendable () -> Void

  init(release: @escaping @Sendable () -> Void) { self.release = release }

  deinit { release() }
}

/// The record of a counted message, with which it can be removed from the count.
enum CountedMessage: Sendable {
  case notLimited
  case inMemory
  /// The time under which the store counts the message, in milliseconds since 1970.
  case inStore(Int)
}

/// The limits on concurrent streams, per user and in total, and on messages per user and hour. Thread-safe.
final class Limiter: Sendable {
  private struct Counts {
    var all = 0
    var byUser: [User: Int] = [:]
  }

  private let counts = Locked(Counts())
  /// The times of messages that the store could not count.
  private let inMemoryMessages = Locked<[User: [ContinuousClock.Instant]]>([:])
  private let log: Log
  private let store: Store
  /// Whether each stream has its own process, so that slots must be counted in files.
  private let sharesSlots: Bool

  init(_ store: Store, sharesSlots: Bool, log: Log) {
    self.store = store
    self.log = log
    self.sharesSlots = sharesSlots
  }

  /// Acquires a slot for a stream.
  ///
  /// - Throws: ``Failure/Code/overloaded``, ``Failure/Code/tooManyStreams``, or ``Failure/Code/storeFailed`` when slots
  ///   are counted in files and that fails.
  func acquireSlot(for user: User, _ configuration: Configuration) async throws(Failure) -> StreamSlot {
    if sharesSlots { return try await acquireSharedSlot(for: user, configuration) }
    let failure: Failure? = counts.withLock { counts in
      if Self.isReached(configuration.maximumStreams, by: counts.all) { return Self.overloaded }
      let own = counts.byUser[user, default: 0]
      if Self.isReached(configuration.streamsPerUser, by: own) {
        return Self.tooManyStreams(configuration.streamsPerUser)
      }
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

  /// Counts a message, in a sliding window of one hour.
  ///
  /// - Returns: the argument for ``removeMessage(_:of:)`` if the request is refused after all.
  /// - Throws: ``Failure/Code/rateLimited``, with the time until another message can be sent.
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
      // If the store is unavailable, enforce the limit in memory instead of refusing or admitting everything.
      log.warning("store unavailable; counting messages in memory", ["error": .string("\(error)")])
      guard let time = countInMemory(user, limit) else { return .inMemory }
      wait = time
    }
    throw Failure(.rateLimited, "The limit of \(limit) messages per hour has been reached.", retryAfter: wait)
  }

  /// Removes a message from the count, because its request was refused.
  func removeMessage(_ message: CountedMessage, of user: User) async {
    switch message {
    case .notLimited: break
    case .inMemory: inMemoryMessages.withLock { _ = $0[user]?.popLast() }
    case .inStore(let time):
      do { try await store.removeMessage(of: user, at: time) } catch {
        log.warning("message could not be removed from the count", ["error": .string("\(error)")])
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

  /// The number of slots in use, excluding those that are counted in files.
  var streams: Int { counts.withLock { $0.all } }

  private func acquireSharedSlot(for user: User, _ configuration: Configuration) async throws(Failure) -> StreamSlot {
    do {
      guard let all = try await store.acquireSlot(limit: configuration.maximumStreams) else { throw Self.overloaded }
      guard let own = try await store.acquireSlot(of: user, limit: configuration.streamsPerUser) else {
        throw Self.tooManyStreams(configuration.streamsPerUser)
      }
      return StreamSlot { withExtendedLifetime((all, own)) {} }
    } catch {
      throw error as? Failure ?? Failure(.storeFailed, "The stream limit could not be checked.", detail: "\(error)")
    }
  }

  private static func isReached(_ limit: Int, by count: Int) -> Bool { limit > 0 && count >= limit }

  private static let overloaded = Failure(
    .overloaded, "The server has reached its limit of concurrent streams.", retryAfter: .seconds(5))

  private static func tooManyStreams(_ limit: Int) -> Failure {
    Failure(
      .tooManyStreams, "The limit of \(limit) concurrent requests per user has been reached.",
      retryAfter: .seconds(5))
  }
}
