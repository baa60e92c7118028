import Upstream

/// Access to the store.
extension Services {
  /// Stores a completed turn under the message id of its generation.
  ///
  /// The replay for its Idempotency-Key is stored first and contains everything that the turn needs. If the process is
  /// killed or the store fails in between, the next request with the key stores the missing part.
  ///
  /// It is not inlined, because its frame would enlarge that of the handler, which exists as long as the stream.
  ///
  /// - Parameter isNew: whether the turn can create the session. If not, a missing session has been deleted.
  /// - Throws: ``Failure/Code/storeFailed``; ``StreamClosedError`` when the session was deleted.
  @inline(never) nonisolated(nonsending) func storeTurn(
    of generation: Generation, _ message: String, in session: String, isNew: Bool, _ completion: Completion,
    _ idempotencyLock: IdempotencyLock?, _ context: RequestContext
  ) async throws -> GenerationResult {
    let stored = context.configuration.stored(generation.more)
    var turn = Turn(
      id: generation.messageID, at: Timestamp.now, user: message, assistant: generation.text, completion: completion,
      model: context.configuration.model)
    turn.assistant.members = stored?.storedMembers ?? [:]
    let result = GenerationResult(
      messageID: turn.id, sessionID: session, completedAt: turn.at, completion: completion, more: generation.more)
    let replay = idempotencyLock.map {
      Replay(
        request: $0.request, messageID: turn.id, text: turn.assistant.content, result: result.with(more: stored),
        user: message, model: turn.model)
    }
    guard generations.beginStoring(generation.id) else {
      generation.terminate(.stopped)
      throw StreamClosedError()
    }
    defer { generations.endStoring(generation.id) }
    let isStored: Bool
    do throws(Failure) {
      isStored = try await writingStore("The response is complete but could not be stored.") {
        if let idempotencyLock, let replay { try await store.complete(idempotencyLock, with: replay) }
        return try await turns.appendUncancelled(
          turn, to: session, of: context.user, createsSession: isNew, mayExist: idempotencyLock != nil)
      }
    } catch {
      // The client receives an error, but it has seen the text: the turn is retained and stored as soon as possible.
      unsaved.add(.turn(turn, session: session), of: context.user, replay: replay, idempotencyLock: idempotencyLock)
      throw error
    }
    guard isStored else {
      if let idempotencyLock { await store.discard(idempotencyLock) }
      generation.terminate(.stopped)
      throw StreamClosedError()
    }
    return result
  }

  /// Stores the turn or the report of a stored response if it is missing, because the process that produced the
  /// response was killed or its store failed.
  ///
  /// - Parameter key: the digest of the Idempotency-Key.
  nonisolated(nonsending) func finishStoring(_ replay: Replay, key: String, for user: User) async throws(Failure) {
    let turn = replay.turn
    let report = replay.report
    guard turn != nil || report != nil else { return }
    let isStored = try await writingStore("The response is complete but could not be stored.") {
      if let report { try await store.saveIfAbsent(report, of: user) }
      guard let turn, let session = replay.result.sessionID else { return true }
      if turns is Store { return try await store.finish(turn, in: session, key: key, user) }
      guard await store.hasReplay(under: key, of: user) else { return false }
      return try await turns.appendUncancelled(turn, to: session, of: user, createsSession: true, mayExist: true)
    }
    guard isStored else {
      throw Failure(
        .conflict, "The session of this response was deleted in the meantime; send the request again.",
        retryAfter: .seconds(1))
    }
  }

  /// Runs `body`, which writes to the store, and counts its success or failure.
  nonisolated(nonsending) func writingStore<Success>(
    _ message: String, _ body: () async throws -> Success
  ) async throws(Failure) -> Success {
    do {
      let result = try await body()
      metrics.countWrite(isStored: true)
      return result
    } catch {
      metrics.countWrite(isStored: false)
      throw Failure(.storeFailed, message, detail: "\(error)")
    }
  }

  /// Runs `body`, which reads the store.
  nonisolated(nonsending) func readingStore<Success>(
    _ body: () async throws -> Success
  ) async throws(Failure) -> Success {
    do { return try await body() } catch {
      throw Failure(.internalError, "The store could not be read.", detail: "\(error)")
    }
  }
}
