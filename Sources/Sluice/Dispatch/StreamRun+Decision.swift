import FastCGI

/// What is found out before anything is written.
extension StreamRun {
  /// What is done about a valid request.
  enum Decision {
    /// There is nothing to stream.
    case respond(Response)
    /// The request itself is not kept: it may be large, and its stream live long.
    case generate(GenerationRequest.Producer, session: String?, Generation.Options, DeliveryFormat)
    /// A stored response to the same request.
    case replay(Replay, Generation.Options, DeliveryFormat)
  }

  /// - Throws: why the request is refused.
  func decide() async throws -> Decision {
    let isDisabled = try endpoint.feature.map { try !services.isEnabled($0, context) } ?? false
    if isDisabled, case .refusal(let alternate) = endpoint.disabledBehavior { throw Self.disabled(alternate) }
    // A JSON response has no dialect to choose.
    let dialect = try endpoint.dialect.map { (own) throws(Failure) in
      try context.head.query("dialect").map { (name) throws(Failure) in try DialectKind.named(name, own: own) } ?? own
    }
    if let response = try await responseWithoutModel(dialect) { return .respond(response) }
    // A conflict needs no slot. All else needs one before a body is parsed or a replay read, which costs more than a
    // user without room may cost.
    let key = try idempotencyKey()
    if let key, !services.unsaved.holds(key: key, of: context.user),
      let stream = await services.store.runningStream(of: key, context.user)
    {
      throw Self.conflict(stream)
    }
    try await acquireSlot()
    // Draining may have begun in the meantime: it waits for those that have a slot.
    if services.isDraining { throw Failure.draining }
    if let key, let earlier = try await acquire(key) {
      return try await replay(earlier, dialect, isDisabled: isDisabled)
    }
    let message = try await countMessage()
    do {
      let request = try await endpoint.validate(context)
      var options = Generation.Options(retainsText: request.retainsText || idempotencyLock != nil)
      options.redactor = try await services.redactor(for: context.configuration)
      return .generate(
        request.produce, session: request.session, options,
        format(request, dialect, messageID: id, isDisabled: isDisabled))
    } catch {
      if let message { await services.streamLimiter.uncount(message, of: context.user) }
      throw error
    }
  }

  private func countMessage() async throws(Failure) -> CountedMessage? {
    guard endpoint.countsAsMessage else { return nil }
    return try await services.streamLimiter.countMessage(of: context.user, context.configuration)
  }

  /// HEAD, and an EventSource that reconnects when its stream is closed, however it terminated: no model generates for
  /// them.
  private func responseWithoutModel(_ dialect: DialectKind?) async throws -> Response? {
    // EventSource reconnects after every stream. 204 makes it stop; the model must not be called again.
    let isReconnection = context.method != "POST" && context.head.header("Last-Event-ID") != nil
    guard isReconnection || context.method == "HEAD" else { return nil }
    let request = try await endpoint.validate(context)
    if isReconnection { return Response(ResponseHead(status: 204)) }
    var head = ResponseHead.eventStream
    dialect?.type.init(request.metadata(messageID: id)).addFields(to: &head)
    return Response(head)
  }

  /// A stored response, less what today's rules redact. It does not count as a message.
  private func replay(
    _ earlier: (replay: Replay, key: String), _ dialect: DialectKind?, isDisabled: Bool
  ) async throws -> Decision {
    let replay = earlier.replay
    guard replay.request == requestDigest else {
      throw Failure(.badRequest, "This Idempotency-Key was already used for a different request; use a new key.")
    }
    let request = try await endpoint.validate(context)
    services.freedMemory.note(replay.text.utf8.count)
    try await services.finishStoring(replay, key: earlier.key, for: context.user)
    return .replay(
      try await services.redacted(replay, for: context.configuration),
      Generation.Options(retainsText: false),
      format(request, dialect, messageID: replay.messageID, isDisabled: isDisabled))
  }

  private func format(
    _ request: GenerationRequest, _ dialect: DialectKind?, messageID: String, isDisabled: Bool
  ) -> DeliveryFormat {
    guard let dialect, !isDisabled, !request.wantsJSON else { return .json(request.jsonBody) }
    let isEventSource = context.method == "GET" && context.head.header("Accept")?.contains("text/event-stream") == true
    return .eventStream(
      dialect.type.init(request.metadata(messageID: messageID)),
      sendsEventID: isEventSource && dialect.type.allowsEventID)
  }

  private static func disabled(_ alternate: String?) -> Failure {
    var failure = Failure(
      .streamingDisabled, "Streaming is disabled for this endpoint" + (alternate.map { "; use \($0) instead." } ?? "."))
    failure.alternate = alternate
    return failure
  }
}

extension Configuration {
  /// What each generation at a location is allowed.
  var generationLimits: GenerationLimits {
    GenerationLimits(
      firstToken: firstTokenTimeout, idle: idleTimeout, total: streamTimeout, maximumTextBytes: maximumResponseBytes)
  }
}
