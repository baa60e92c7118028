import FastCGI

/// The decision about a request, made before anything is written.
extension StreamRun {
  /// The action that a run takes for a valid request.
  enum Decision {
    /// Send a response without a stream.
    case respond(Response)
    /// Generate a response. The request itself is not retained, because it can be large and its stream long-lived.
    case generate(GenerationRequest.Producer, session: String?, Generation.Options, DeliveryFormat)
    /// Send the response stored for an earlier, identical request.
    case replay(Replay, Generation.Options, DeliveryFormat)
  }

  /// Decides what to do with the request.
  ///
  /// - Throws: the reason why the request is refused.
  func decide() async throws -> Decision {
    let isDisabled = try endpoint.feature.map { try !services.isEnabled($0, context) } ?? false
    if isDisabled, case .refusal(let alternate) = endpoint.disabledBehavior { throw Self.disabled(alternate) }
    // A JSON response has no dialect, so `?dialect=` has no effect on it.
    let dialect = try endpoint.dialect.map { (own) throws(Failure) in
      try context.head.query("dialect").map { (name) throws(Failure) in try DialectKind.named(name, own: own) } ?? own
    }
    if let response = try await responseWithoutModel(dialect) { return .respond(response) }
    // A conflict needs no slot. All other requests acquire one before a body is parsed or a replay is read, because a
    // user without a free slot must not cause that work.
    let key = try idempotencyKey()
    if let key, !services.unsaved.contains(key: key, of: context.user),
      let stream = await services.store.runningStream(of: key, context.user)
    {
      throw Self.conflict(stream)
    }
    try await acquireSlot()
    // Draining can have begun in the meantime; it waits only for requests that hold a slot.
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
      if let message { await services.streamLimiter.removeMessage(message, of: context.user) }
      throw error
    }
  }

  private func countMessage() async throws(Failure) -> CountedMessage? {
    guard endpoint.countsAsMessage else { return nil }
    return try await services.streamLimiter.countMessage(of: context.user, context.configuration)
  }

  /// Returns the response to a request that never calls a model: HEAD, or an EventSource that reconnects after its
  /// stream has been closed for any reason.
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

  /// Returns the decision to send a stored response, redacted by the current rules. It does not count as a message.
  private func replay(
    _ earlier: (replay: Replay, key: String), _ dialect: DialectKind?, isDisabled: Bool
  ) async throws -> Decision {
    let replay = earlier.replay
    guard replay.request == requestDigest else {
      throw Failure(.badRequest, "This Idempotency-Key was already used for a different request; use a new key.")
    }
    let request = try await endpoint.validate(context)
    services.freedMemory.record(replay.text.utf8.count)
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
  /// The limits of each generation at a location.
  var generationLimits: GenerationLimits {
    GenerationLimits(
      firstToken: firstTokenTimeout, idle: idleTimeout, total: streamTimeout, maximumTextBytes: maximumResponseBytes)
  }
}
