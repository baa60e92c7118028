import EventLoop
import FastCGI
import JSON

/// One run of a streaming endpoint, from the authenticated request to the log line that reports its outcome.
final class StreamRun {
  let services: Services

  let context: RequestContext
  private let route: String
  let endpoint: StreamingEndpoint
  private let reactor: Reactor
  /// Whether the response is sent over a WebSocket, which carries streams only.
  let isWebSocket: Bool
  /// Whether a setting disables streaming at this endpoint.
  var isDisabled = false
  let id = Identifier.make()
  /// The stream's slot, held for the lifetime of this run.
  private var slot: StreamSlot?
  /// The exclusive right to respond to the request's Idempotency-Key, if it has one.
  var idempotencyLock: IdempotencyLock?
  /// The digest of the request, because a replay requires identical requests. Empty without an Idempotency-Key.
  var requestDigest = ""

  init(
    _ context: RequestContext, route: String, _ endpoint: StreamingEndpoint, _ services: Services, _ reactor: Reactor,
    isWebSocket: Bool
  ) {
    self.isWebSocket = isWebSocket
    self.context = context
    self.route = route
    self.endpoint = endpoint
    self.services = services
    self.reactor = reactor
  }

  /// Responds to the request, or starts a stream that responds.
  func run(_ client: consuming StreamClient) async {
    let decision: Decision
    do { decision = try await decide() } catch {
      await releaseIdempotencyLock()
      return await refuse(Failure(cause: error), client)
    }
    switch decision {
    case .respond(let response): await client.respond(response)
    case .passOn(let request, let otherwise):
      guard let client = client.passOn({ services.passOn(request, &$0) }) else { return }
      switch otherwise {
      case .success(let response): await client.respond(response)
      case .failure(let failure): await refuse(failure, client)
      }
    case .generate(let produce, let session, let options, let format):
      if !endpoint.retainsBody { context.body.release() }
      start(produce, options, format, messageID: id, session: session, client)
    case .replay(let replay, let options, let format):
      context.body.release()
      start(
        { generation, _ in try await replay.send(to: generation) }, options, format, messageID: replay.messageID,
        session: nil, client)
    case .read(let reading, let format):
      context.body.release()
      let webSocket = client.webSocket
      reading.start(
        context, route: route, services, to: delivery(of: reading.transcript.id, format, client))
      if webSocket?.isStopRequested == true { services.generations.stop(reading.transcript.id) }
    }
  }

  private func refuse(_ failure: Failure, _ client: consuming StreamClient) async {
    services.recordRefusal(failure, fields: fields)
    await client.refuse(failure, context.head)
  }

  /// Acquires the slot of this run. A replay needs one too, although it calls no model and does not count as a message.
  func acquireSlot() async throws(Failure) {
    slot = try await services.streamLimiter.acquireSlot(for: context.user, context.configuration)
  }

  /// Releases the key. The next request with it generates again, unless a response to this one is stored.
  private func releaseIdempotencyLock() async {
    if let idempotencyLock { await services.store.release(idempotencyLock) }
    idempotencyLock = nil
  }

  // MARK: Stream

  /// Starts the stream in a task of its own. A task retains its peak memory, and deciding on a request needs more than
  /// the stream, which can be long-lived.
  private func start(
    _ produce: @escaping GenerationRequest.Producer, _ options: consuming Generation.Options,
    _ format: consuming DeliveryFormat, messageID: String, session: String?, _ client: consuming StreamClient
  ) {
    let webSocket = client.webSocket
    var delivery = delivery(of: id, format, client)
    if let transcript = options.transcript { delivery = sharedDelivery(of: transcript, with: delivery) }
    let generation = Generation(
      id: id, messageID: messageID, options, limits: context.configuration.generationLimits, reactor: reactor,
      delivery: delivery)
    let task = reactor.spawn { await self.stream(generation, produce) }
    generation.start { task.cancel() }
    register(generation, session: session)
    // It may have been revoked since the request was authenticated.
    if context.parts.authenticator.isRevoked(context.user) { generation.terminate(.failed(.revoked)) }
    if webSocket?.isStopRequested == true { generation.terminate(.stopped) }
    log(.info, "stream started", ["stream": .string(id)])
  }

  private func delivery(
    of id: String, _ format: consuming DeliveryFormat, _ client: consuming StreamClient
  ) -> any Delivery {
    client.delivery(
      of: id, format, to: context.head, heartbeat: context.configuration.heartbeat, on: reactor, pool: services.pool)
  }

  /// Returns a delivery to any number of readers, of which `first` is the first one.
  private func sharedDelivery(of transcript: Transcript, with first: any Delivery) -> any Delivery {
    let handle = TranscriptReaderHandle(on: reactor.loop)
    // A new transcript has room for a reader.
    _ = try? transcript.attach(handle)
    let shared = TranscriptDelivery(
      transcript, gracePeriod: context.configuration.resume, in: services.transcripts, services.descriptors, on: reactor
    )
    services.transcripts.read(transcript, handle, after: 0, to: first, on: reactor) { [services] in
      services.metrics.countSentBytes($0)
    }
    return shared
  }

  private func stream(_ generation: Generation, _ produce: GenerationRequest.Producer) async {
    var termination: Termination
    do {
      var result = try await produce(generation, idempotencyLock)
      try await generation.finishText()
      if result.more == nil, let more = generation.more { result = result.with(more: more) }
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

  /// Stores the response for a repetition of the same request, unless it was stored together with its turn. A failure to
  /// store it does not fail the response.
  private func storeReplay(of generation: Generation, _ result: GenerationResult) async {
    guard let idempotencyLock, generation.isTextComplete else { return }
    let replay = Replay(
      request: idempotencyLock.request, messageID: generation.messageID, text: generation.text,
      result: result.with(more: context.configuration.stored(result.more)))
    do { try await services.store.complete(idempotencyLock, with: replay) } catch {
      services.log.warning("response not stored for its Idempotency-Key", ["error": .string("\(error)")])
    }
  }

  private func register(_ generation: Generation, session: String?) {
    // Safe: the closure passed to `execute` runs on the loop to which the generation belongs.
    let bound = unsafe LoopBound(generation)
    let loop = reactor.loop
    services.generations.add(generation.id, of: context.user, session: session, key: idempotencyLock?.key) {
      termination in
      loop.execute { _ in bound.value.terminate(termination) }
    }
  }

  /// Counts and logs the outcome, once per stream.
  private func report(_ generation: Generation, _ termination: Termination) {
    let firstToken = generation.firstDeltaAt.map { $0 - generation.startedAt }
    let total = reactor.now - generation.startedAt
    services.metrics.countStream(
      route: route, termination.outcome, firstToken: firstToken, total: total, deltas: generation.deltas,
      // Each reader counts its own bytes.
      sentBytes: generation.transcript == nil ? generation.sentBytes : 0)
    var fields: JSON.Members = ["stream": .string(id), "outcome": .string(termination.outcome.rawValue)]
    if case .completed(let result) = termination {
      fields["messageId"] = result.messageID.map(JSON.string)
      fields["sessionId"] = result.sessionID.map(JSON.string)
      fields["finishReason"] = .string(result.completion.finishReason.rawValue)
    }
    if case .failed(let failure) = termination {
      fields["error"] = .string(failure.code.name)
      fields["cause"] = failure.cause.map(JSON.string)
      fields["detail"] = .string(failure.detail ?? failure.message)
    }
    fields["firstTokenMs"] = firstToken.map { .integer(Int($0.roundedDownMilliseconds)) }
    fields["totalMs"] = .integer(Int(total.roundedDownMilliseconds))
    fields["deltas"] = .integer(generation.deltas)
    fields["bytes"] = .integer(generation.sentBytes)
    var level = Log.Level.info
    if case .failed(let failure) = termination {
      level = failure.code.logLevel
      services.metrics.countFailure(failure)
      services.noteFailure(failure)
    }
    log(level, "stream ended", fields)
  }

  private func log(_ level: Log.Level, _ message: String, _ fields: @autoclosure () -> JSON.Members) {
    guard services.log.writes(level) else { return }
    let fields = fields()
    var all = self.fields
    all.merge(fields)
    services.log.write(level, message, all)
  }

  /// The fields of every log line of this run.
  private var fields: JSON.Members {
    ["correlationId": .string(context.correlationID), "route": .string(route), "user": .string(context.user.name)]
  }
}
