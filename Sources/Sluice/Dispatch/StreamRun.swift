import EventLoop
import FastCGI
import JSON

/// One run of a streaming endpoint, from the authenticated request to the one line in the log that says how it ended.
final class StreamRun {
  let services: Services

  let context: RequestContext
  private let route: String
  let endpoint: StreamingEndpoint
  private let reactor: Reactor
  let id = Identifier.make()
  /// The right to stream, which this run has as long as it lives.
  private var slot: StreamSlot?
  /// The right to answer the requests with its Idempotency-Key, where it has one.
  var idempotencyLock: IdempotencyLock?
  /// Two requests with one key must be the same. Empty without a key.
  var requestDigest = ""

  init(
    _ context: RequestContext, route: String, _ endpoint: StreamingEndpoint, _ services: Services, _ reactor: Reactor
  ) {
    self.context = context
    self.route = route
    self.endpoint = endpoint
    self.services = services
    self.reactor = reactor
  }

  /// Answers, or starts the stream that does.
  func run(_ writer: consuming ResponseWriter) async {
    let decision: Decision
    do { decision = try await decide() } catch {
      let failure = Failure(cause: error)
      services.recordRefusal(failure, fields: fields)
      await releaseIdempotencyLock()
      await writer.respond(failure.response(to: context.head))
      return
    }
    switch decision {
    case .respond(let response): await writer.respond(response)
    case .generate(let produce, let session, let options, let format):
      if !endpoint.retainsBody { context.body.release() }
      start(produce, options, format, messageID: id, session: session, writer)
    case .replay(let replay, let options, let format):
      context.body.release()
      start(
        { generation, _ in try await replay.send(to: generation) }, options, format, messageID: replay.messageID,
        session: nil, writer)
    }
  }

  /// A replay calls no model: it needs a slot but does not count as a message.
  func acquireSlot() async throws(Failure) {
    slot = try await services.streamLimiter.acquireSlot(for: context.user, context.configuration)
  }

  /// The next request with the key generates again, unless a response to this one is stored.
  private func releaseIdempotencyLock() async {
    if let idempotencyLock { await services.store.release(idempotencyLock) }
    idempotencyLock = nil
  }

  // MARK: The stream

  /// Starts the stream, in a task of its own: a task keeps the memory that it has needed at most, and deciding on a request
  /// needs more than the stream does, which may live long.
  private func start(
    _ produce: @escaping GenerationRequest.Producer, _ options: consuming Generation.Options,
    _ format: consuming DeliveryFormat, messageID: String, session: String?, _ writer: consuming ResponseWriter
  ) {
    let delivery = format.delivery(
      of: id, to: context.head, heartbeat: context.configuration.heartbeat, on: reactor, pool: services.pool, writer)
    let generation = Generation(
      id: id, messageID: messageID, options, limits: context.configuration.generationLimits, reactor: reactor,
      delivery: delivery)
    let task = reactor.spawn { await self.stream(generation, produce) }
    generation.start { task.cancel() }
    register(generation, session: session)
    log(.info, "stream started", ["stream": .string(id)])
  }

  private func stream(_ generation: Generation, _ produce: GenerationRequest.Producer) async {
    var termination: Termination
    do {
      let result = try await produce(generation, idempotencyLock)
      try await generation.finishText()
      await storeReplay(of: generation, result)
      termination = .completed(result)
    } catch {
      termination = .failed(Failure(cause: error))
    }
    await releaseIdempotencyLock()
    termination = await generation.close(termination)
    services.generations.remove(id)
    report(generation, termination)
  }

  /// Stores the response for the same request sent again, where storing its turn has not done that. That it cannot be
  /// stored is no reason to fail it.
  private func storeReplay(of generation: Generation, _ result: GenerationResult) async {
    guard let idempotencyLock, generation.isTextComplete else { return }
    let replay = Replay(
      request: idempotencyLock.request, messageID: generation.messageID, text: generation.text, result: result)
    do { try await services.store.complete(idempotencyLock, with: replay) } catch {
      services.log.warning("response not stored for its Idempotency-Key", ["error": .string("\(error)")])
    }
  }

  private func register(_ generation: Generation, session: String?) {
    // Safe: the closure given to `execute` runs on the loop to which the generation belongs.
    let bound = unsafe LoopBound(generation)
    let loop = reactor.loop
    services.generations.add(generation.id, of: context.user, session: session) { termination in
      loop.execute { _ in bound.value.terminate(termination) }
    }
  }

  /// Counts and logs how a stream ended: once for each.
  private func report(_ generation: Generation, _ termination: Termination) {
    let firstToken = generation.firstDeltaAt.map { $0 - generation.startedAt }
    let total = reactor.now - generation.startedAt
    services.metrics.streamEnded(
      route: route, termination.outcome, firstToken: firstToken, total: total, deltas: generation.deltas,
      sentBytes: generation.sentBytes)
    var fields: JSON.Members = ["stream": .string(id), "outcome": .string(termination.outcome.rawValue)]
    if case .completed(let result) = termination {
      fields["messageId"] = result.messageID.map(JSON.string)
      fields["sessionId"] = result.sessionID.map(JSON.string)
    }
    if case .failed(let failure) = termination {
      fields["error"] = .string(failure.code.name)
      fields["detail"] = .string(failure.detail ?? failure.message)
    }
    fields["firstTokenMs"] = firstToken.map { .integer(Int($0.wholeMilliseconds)) }
    fields["totalMs"] = .integer(Int(total.wholeMilliseconds))
    fields["deltas"] = .integer(generation.deltas)
    fields["bytes"] = .integer(generation.sentBytes)
    var level = Log.Level.info
    if case .failed(let failure) = termination { level = failure.code.logLevel }
    log(level, "stream ended", fields)
  }

  private func log(_ level: Log.Level, _ message: String, _ fields: JSON.Members) {
    var all = self.fields
    all.merge(fields)
    services.log.write(level, message, all)
  }

  /// What every line in the log says of this run.
  private var fields: JSON.Members {
    ["correlationId": .string(context.correlationID), "route": .string(route), "user": .string(context.user.name)]
  }
}
