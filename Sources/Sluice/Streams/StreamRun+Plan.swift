import FastCGI
import JSON

/// What is found out before anything is written.
extension StreamRun {
  /// What is done about a valid request.
  enum Plan {
    /// There is nothing to stream.
    case answer(Response)
    /// What generates, and the session in which the turn will be stored. The question itself is not kept: it may be
    /// large, and its stream live long.
    case stream(GenerationRequest.Producer, session: String?, ResponseStream.Form)
    /// It was answered before.
    case replay(Replay, ResponseStream.Form)
  }

  /// - Throws: why the request is refused.
  func prepare() async throws -> Plan {
    let isOff = endpoint.feature.map { !context.configuration.has($0) } ?? false
    if isOff, case .refusal(let alternate) = endpoint.disabledBehavior { throw Self.disabled(alternate) }
    // What answers in one piece has no dialect to choose.
    let dialect = try endpoint.dialect.map { own in try context.head.query("dialect").map(Dialects.named) ?? own }
    if let response = try await responseWithoutModel(dialect) { return .answer(response) }
    // A conflict needs no slot. All else needs one before a body is parsed or an answer read, which costs more than a
    // user without room may cost.
    let key = try idempotencyKey()
    if let key, !services.unsaved.holds(key: key, of: context.user),
      let stream = await services.store.runningStream(of: key, context.user)
    {
      throw Self.conflict(stream)
    }
    try await takeSlot()
    // The server may have begun to end meanwhile: it waits for those that have a slot.
    if services.isDraining { throw Failure.draining }
    if let key, let earlier = try await acquire(key) { return try await plan(earlier, dialect, isOff: isOff) }
    let message = try await services.limiter.countMessage(of: context.user, context.configuration)
    do {
      let question = try await endpoint.validate(context)
      var form = form(question, dialect, messageID: id, isOff: isOff)
      form.redactor = try await services.redactor(for: context.configuration)
      form.claim = claim
      return .stream(question.produce, session: question.session, form)
    } catch {
      await services.limiter.uncount(message, of: context.user)
      throw error
    }
  }

  /// HEAD, and an EventSource that reconnects when its stream is over, however it ended: no model generates for them.
  private func responseWithoutModel(_ dialect: (any Dialect.Type)?) async throws -> Response? {
    let isReconnection = context.method != "POST" && context.head.header("Last-Event-ID") != nil
    guard isReconnection || context.method == "HEAD" else { return nil }
    let question = try await endpoint.validate(context)
    if isReconnection { return Response(ResponseHead(status: 204)) }
    var head = ResponseHead.eventStream
    dialect?.init(description(question, messageID: id)).addFields(to: &head)
    return Response(head)
  }

  /// What was answered before is answered the same, less what today's patterns take out. It is no message.
  private func plan(_ earlier: (replay: Replay, key: String), _ dialect: (any Dialect.Type)?, isOff: Bool) async throws
    -> Plan
  {
    let replay = earlier.replay
    guard replay.request == requestDigest else {
      throw Failure(.badRequest, "This Idempotency-Key was sent with another request: a new request needs a new one.")
    }
    let question = try await endpoint.validate(context)
    services.freedMemory.note(replay.text.utf8.count)
    try await services.finishStoring(replay, key: earlier.key, for: context.user)
    var form = form(question, dialect, messageID: replay.messageID, isOff: isOff)
    form.retainsText = form.whole != nil
    return .replay(try await services.redacted(replay, for: context.configuration), form)
  }

  private func form(
    _ question: GenerationRequest, _ dialect: (any Dialect.Type)?, messageID: String, isOff: Bool
  ) -> ResponseStream.Form {
    let isJSON = dialect == nil || isOff || question.wantsJSON
    let dialect = dialect ?? EventsDialect.self
    let isEventSource = context.method == "GET" && context.head.header("Accept")?.contains("text/event-stream") == true
    return ResponseStream.Form(
      dialect: dialect.init(description(question, messageID: messageID)), whole: isJSON ? question.jsonBody : nil,
      pool: services.pool, retainsText: question.retainsText || claim != nil,
      sendsEventID: isEventSource && dialect.allowsEventID)
  }

  private func description(_ question: GenerationRequest, messageID: String) -> StreamMetadata {
    var description = StreamMetadata(messageID: messageID)
    description.message = question.message
    description.model = question.model ?? description.model
    description.wantsUsage = question.wantsUsage
    return description
  }

  /// The request's Idempotency-Key, where it has one that counts.
  private func idempotencyKey() throws(Failure) -> String? {
    guard endpoint.supportsIdempotencyKey, context.method == "POST", let key = context.head.header("Idempotency-Key")
    else {
      return nil
    }
    guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw Failure(.badRequest, "An Idempotency-Key must be 1 to 255 visible ASCII characters.")
    }
    return key
  }

  /// Acquires an Idempotency-Key for this run.
  ///
  /// - Returns: the answer that was given to the same request before, and the digest of its key.
  private func acquire(_ key: String) async throws -> (replay: Replay, key: String)? {
    // Of a large body that takes milliseconds.
    let (body, path) = (context.body, context.head.path)
    requestDigest = await services.pool.run { Digest(of: Array("\(path)\n".utf8) + body.bytes).hex }
    // A complete answer may wait to be stored: it is the answer to this request too, as soon as it is.
    let (unsaved, user) = (services.unsaved, context.user)
    guard await services.pool.run({ unsaved.store(key: key, of: user) }) else {
      throw Failure(.storeFailed, "The answer is complete, but it could not be stored.")
    }
    guard let unit = services.descriptors.unit() else {
      throw Failure(.overloaded, "The server has no descriptor left for another stream.", retryAfter: .seconds(5))
    }
    let state: ReplayState
    do {
      state = try await services.store.claimReplay(of: key, request: requestDigest, by: id, context.user, unit: unit)
    } catch {
      throw Failure(.storeFailed, "The Idempotency-Key could not be looked up.", detail: "\(error)")
    }
    switch state {
    case .free(let claim): self.claim = claim
    case .running(let stream): throw Self.conflict(stream)
    case .complete(let replay): return (replay, Digest(of: key).hex)
    }
    return nil
  }

  private static func conflict(_ stream: String) -> Failure {
    var failure = Failure(
      .conflict, "The stream \(stream) answers the request with this Idempotency-Key now.", retryAfter: .seconds(1))
    failure.streamID = stream
    return failure
  }

  private static func disabled(_ alternate: String?) -> Failure {
    var failure = Failure(
      .streamingDisabled, "Streaming is turned off here" + (alternate.map { "; \($0) answers in one piece." } ?? "."))
    failure.alternate = alternate
    return failure
  }
}
