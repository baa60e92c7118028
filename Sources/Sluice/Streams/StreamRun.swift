import EventLoop
import FastCGI
import JSON
import Upstream

/// One run of a streaming endpoint, from the authenticated request to the one line in the log that says how it ended.
final class StreamRun {
  let services: Services

  let context: RequestContext
  private let route: String
  let endpoint: StreamingEndpoint
  private let reactor: Reactor
  private let task: RequestDispatcher.RequestTask
  let id = Identifier.make()
  /// The right to stream, until this run is over.
  private var slot: StreamSlot?
  /// The right to answer the requests with its Idempotency-Key, where it has one.
  var claim: ReplayClaim?
  /// Two requests with one key must be the same. Empty without a key.
  var requestDigest = ""

  init(
    _ context: RequestContext, route: String, _ endpoint: StreamingEndpoint, _ services: Services, _ reactor: Reactor,
    _ task: RequestDispatcher.RequestTask
  ) {
    self.context = context
    self.route = route
    self.endpoint = endpoint
    self.services = services
    self.reactor = reactor
    self.task = task
  }

  func run(_ writer: consuming ResponseWriter) async {
    defer { slot = nil }
    let plan: Plan
    do { plan = try await prepare() } catch {
      let failure = Failure(cause: error)
      services.recordRefusal(failure, fields: fields)
      await releaseClaim()
      await writer.respond(failure.response(to: context.head))
      return
    }
    switch plan {
    case .answer(let response): await writer.respond(response)
    case .stream(let answer, let session, let form):
      if !endpoint.retainsBody { context.body.release() }
      await stream(answer, form, messageID: id, session: session, writer)
    case .replay(let replay, let form):
      context.body.release()
      await stream({ try await replay.send(to: $0) }, form, messageID: replay.messageID, session: nil, writer)
    }
  }

  /// What is replayed asks no model and is no message, but a stream.
  func takeSlot() async throws(Failure) {
    slot = try await services.limiter.slot(for: context.user, context.configuration)
  }

  /// The next request with the key is answered anew, unless an answer to this one is kept.
  private func releaseClaim() async {
    if let claim { await services.store.abandon(claim) }
    claim = nil
  }

  // MARK: The stream

  private func stream(
    _ answer: GenerationRequest.Producer, _ form: consuming ResponseStream.Form, messageID: String, session: String?,
    _ writer: consuming ResponseWriter
  ) async {
    let stream = ResponseStream(
      id: id, messageID: messageID, form: form, limits: context.configuration.streamLimits, reactor: reactor,
      writer: writer)
    register(stream, session: session)
    log(.info, "stream started", ["stream": .string(id)])
    var ending: Termination
    do {
      let finish = try await answer(stream)
      try await stream.finishText()
      await keep(stream, finish)
      ending = .completed(finish)
    } catch {
      ending = .failed(Failure(cause: error))
    }
    await releaseClaim()
    ending = await stream.close(ending, for: context.head)
    services.streams.remove(id)
    report(stream, ending)
  }

  /// Keeps an answer for the same request sent again, where storing it has not done that already. That it cannot be kept
  /// is no reason to fail it.
  private func keep(_ stream: ResponseStream, _ finish: GenerationResult) async {
    // A handler that goes on after its stream was ended has no whole answer, whatever it returns.
    guard let claim, !stream.wasTold else { return }
    let replay = Replay(request: claim.request, messageID: stream.messageID, text: stream.text, finish: finish)
    do { try await services.store.complete(claim, with: replay) } catch {
      services.log.warning("an answer could not be kept for its Idempotency-Key", ["error": .string("\(error)")])
    }
  }

  private func register(_ stream: ResponseStream, session: String?) {
    stream.start { [task] in task.cancel() }
    // Safe: the closure given to `execute` runs on the loop to which the stream belongs.
    let bound = unsafe LoopBound(stream)
    let loop = reactor.loop
    services.streams.add(stream.id, of: context.user, session: session) { ending in
      loop.execute { _ in bound.value.end(ending) }
    }
  }

  /// Counts and logs how a stream ended: once for each.
  private func report(_ stream: ResponseStream, _ ending: Termination) {
    let firstToken = stream.firstDeltaAt.map { $0 - stream.startedAt }
    let total = reactor.now - stream.startedAt
    services.metrics.streamEnded(
      route: route, ending.outcome, firstToken: firstToken, total: total, deltas: stream.deltas,
      sentBytes: stream.sentBytes)
    var fields: JSON.Members = ["stream": .string(id), "outcome": .string(ending.outcome.rawValue)]
    if case .completed(let finish) = ending {
      fields["messageId"] = finish.messageID.map(JSON.string)
      fields["sessionId"] = finish.sessionID.map(JSON.string)
    }
    if case .failed(let failure) = ending {
      fields["error"] = .string(failure.code.rawValue)
      fields["detail"] = .string(failure.detail ?? failure.message)
    }
    fields["firstTokenMs"] = firstToken.map { .integer(Int($0.wholeMilliseconds)) }
    fields["totalMs"] = .integer(Int(total.wholeMilliseconds))
    fields["deltas"] = .integer(stream.deltas)
    fields["bytes"] = .integer(stream.sentBytes)
    var level = Configuration.LogLevel.info
    if case .failed(let failure) = ending { level = failure.code.logLevel }
    log(level, "stream ended", fields)
  }

  private func log(_ level: Configuration.LogLevel, _ message: String, _ fields: JSON.Members) {
    var all = self.fields
    all.merge(fields)
    services.log.write(level, message, all)
  }

  /// What every line in the log says of this run.
  private var fields: JSON.Members {
    ["correlationId": .string(context.correlationID), "route": .string(route), "user": .string(context.user.name)]
  }
}
