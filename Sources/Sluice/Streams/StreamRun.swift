import EventLoop
import FastCGI
import JSON
import Upstream

/// One run of a streaming endpoint, from the authenticated request to the one line in the log that says how it ended.
final class StreamRun {
  let services: Services
  /// The task that ``run(_:)`` runs in, for cancelling it.
  var task: Task<Void, Never>?

  private let call: Call
  private let route: String
  private let endpoint: StreamingEndpoint
  private let reactor: Reactor
  private let id = Identifier.make()
  /// The right to stream, from the moment in which the request is known to be valid until this run is over.
  private var slot: StreamSlot?

  init(_ call: Call, route: String, _ endpoint: StreamingEndpoint, _ services: Services, _ reactor: Reactor) {
    self.call = call
    self.route = route
    self.endpoint = endpoint
    self.services = services
    self.reactor = reactor
  }

  func run(_ writer: consuming ResponseWriter) async {
    defer { slot = nil }
    let plan: Plan
    do { plan = try await prepare() } catch {
      let failure = Failure(cause: error)
      services.metrics.refused(failure.code)
      log(
        failure.code.logLevel, "refused",
        [
          "status": .integer(failure.code.status), "error": .string(failure.code.rawValue),
          "detail": failure.detail.map(JSON.string) ?? .null,
        ])
      await writer.respond(failure.response(to: call.request))
      return
    }
    switch plan {
    case .answer(let response): await writer.respond(response)
    case .stream(let question, let form, let claim):
      if !endpoint.keepsBody { call.dropBody() }
      await stream(question.answer, form, claim, messageID: id, writer)
    case .replay(let replay, let form):
      await stream(
        { stream in
          try await stream.send(replay.text)
          return replay.finish
        }, form, nil, messageID: replay.messageID, writer)
    }
  }

  // MARK: Before anything is written

  /// What is done about a valid request.
  private enum Plan {
    /// There is nothing to stream.
    case answer(Response)
    case stream(Question, ResponseStream.Form, ReplayClaim?)
    /// It was answered before.
    case replay(Replay, ResponseStream.Form)
  }

  private func prepare() async throws -> Plan {
    if services.isDraining { throw Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5)) }
    let isOff = endpoint.feature.map { !call.configuration.has($0) } ?? false
    if isOff, case .refusal(let twin) = endpoint.alternative {
      var failure = Failure(
        .streamingDisabled, "Streaming is turned off here" + (twin.map { "; \($0) answers in one piece." } ?? "."))
      failure.alternate = twin
      throw failure
    }
    // What answers in one piece has no dialect to choose.
    let dialect = try endpoint.dialect.map { own in try call.request.query("dialect").map(Dialects.named) ?? own }
    let (isGet, isHead) = (call.request.method == "GET", call.request.method == "HEAD")
    let isEventSource = isGet && call.request.header("Accept")?.contains("text/event-stream") == true
    let question = try await endpoint.ask(call)
    // An EventSource reconnects when a stream is over, however it ended. A model must not answer again for that.
    if isGet || isHead, call.request.header("Last-Event-ID") != nil {
      return .answer(Response(ResponseHead(status: 204)))
    }

    var description = StreamDescription(messageID: id)
    description.message = question.message
    description.model = question.model ?? description.model
    description.wantsUsage = question.wantsUsage
    if isHead {
      var head = ResponseHead.eventStream
      dialect?.init(description).addFields(to: &head)
      return .answer(Response(head))
    }
    let redactor = try services.redactor(for: call.configuration)
    func form(keepsText: Bool) -> ResponseStream.Form {
      let type = dialect ?? EventsDialect.self
      let isWhole = question.wantsWhole || isOff || dialect == nil
      return ResponseStream.Form(
        dialect: type.init(description), whole: isWhole ? question.whole : nil, keepsText: keepsText,
        redactor: redactor, sendsID: isEventSource && type.allowsEventID)
    }
    guard endpoint.keepsAnswers, call.request.method == "POST", let key = call.request.header("Idempotency-Key") else {
      try await admit()
      return .stream(question, form(keepsText: question.keepsText), nil)
    }
    switch try await claim(key) {
    case .free(let claim):
      _ = requestDigest
      do throws(Failure) { try await admit() } catch {
        await services.store.abandon(claim)
        throw error
      }
      return .stream(question, form(keepsText: true), claim)
    case .running(let stream):
      var failure = Failure(
        .conflict, "The stream \(stream) answers the request with this Idempotency-Key now.",
        retryAfter: .seconds(1))
      failure.streamID = stream
      throw failure
    case .complete(let replay):
      guard replay.request == requestDigest else {
        throw Failure(.badRequest, "This Idempotency-Key was sent with another request: a new request needs a new one.")
      }
      description.messageID = replay.messageID
      // What was kept is redacted already.
      var form = form(keepsText: false)
      form.redactor = nil
      return .replay(replay, form)
    }
  }

  /// Within the limits, or not at all. What is replayed asks no model, and is not limited.
  private func admit() async throws(Failure) {
    slot = try await services.limiter.slot(for: call.user, call.configuration)
    try await services.limiter.countMessage(of: call.user, call.configuration)
  }

  private func claim(_ key: String) async throws -> ReplayState {
    guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw Failure(.badRequest, "An Idempotency-Key must be 1 to 255 visible ASCII characters.")
    }
    do { return try await services.store.claimReplay(of: key, by: id, call.user) } catch {
      throw Failure(.storeFailed, "The Idempotency-Key could not be looked up.", detail: "\(error)")
    }
  }

  /// Two requests with one key must be the same. Asked for while the body is there.
  private lazy var requestDigest: String = Digest(of: Array("\(call.request.path)\n".utf8) + call.request.body).hex

  // MARK: The stream

  private func stream(
    _ answer: Question.Answering, _ form: consuming ResponseStream.Form, _ claim: ReplayClaim?, messageID: String,
    _ writer: consuming ResponseWriter
  ) async {
    let stream = ResponseStream(
      id: id, messageID: messageID, form: form, limits: call.configuration.streamLimits, reactor: reactor,
      writer: writer)
    register(stream)
    log(.info, "stream started", ["stream": .string(id)])
    var ending: Ending
    do {
      let finish = try await answer(stream)
      // A handler that goes on after its stream was ended has no whole answer, whatever it returns.
      if let claim, !stream.mustEnd {
        await keep(stream, finish, claim)
      } else if let claim {
        await services.store.abandon(claim)
      }
      ending = .finished(finish)
    } catch {
      if let claim { await services.store.abandon(claim) }
      ending = .failed(Failure(cause: error))
    }
    ending = await stream.close(ending, for: call.request)
    services.streams.remove(id)
    report(stream, ending)
  }

  /// Keeps an answer for the same request sent again. That it cannot be kept is no reason to fail it.
  private func keep(_ stream: ResponseStream, _ finish: Finish, _ claim: ReplayClaim) async {
    let replay = Replay(request: requestDigest, messageID: stream.messageID, text: stream.text, finish: finish)
    do { try await services.store.complete(claim, with: replay) } catch {
      services.log.warning("an answer could not be kept for its Idempotency-Key", ["error": .string("\(error)")])
    }
  }

  private func register(_ stream: ResponseStream) {
    stream.start { [unowned self] in task?.cancel() }
    // Safe: the closure given to `execute` runs on the loop to which the stream belongs.
    let bound = unsafe LoopBound(stream)
    let loop = reactor.loop
    services.streams.add(stream.id, of: call.user) { ending in
      loop.execute { _ in bound.value.end(ending) }
    }
  }

  /// Counts and logs how a stream ended: once for each.
  private func report(_ stream: ResponseStream, _ ending: Ending) {
    let firstToken = stream.firstDeltaAt.map { $0 - stream.startedAt }
    let total = reactor.now - stream.startedAt
    services.metrics.streamEnded(
      route: route, ending.outcome, firstToken: firstToken, total: total, deltas: stream.deltas,
      sentBytes: stream.sentBytes)
    var fields: JSON.Members = ["stream": .string(id), "outcome": .string(ending.outcome.rawValue)]
    if case .finished(let finish) = ending {
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
    var all: JSON.Members = [
      "correlationId": .string(call.correlationID), "route": .string(route), "user": .string(call.user.name),
    ]
    all.merge(fields)
    services.log.write(level, message, all)
  }
}
