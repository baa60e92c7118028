import FastCGI
import Upstream

/// The decision about a request, made before anything is written.
extension StreamRun {
  /// The action that a run takes for a valid request.
  enum Decision {
    /// Send a response without a stream.
    case respond(Response)
    /// Pass the request to an earlier process, which can have its stream, or else answer it here.
    case passOn(Request, else: Result<Response, Failure>)
    /// Generate a response. The request itself is not retained, because it can be large and its stream long-lived.
    case generate(GenerationRequest.Producer, session: String?, Generation.Options, DeliveryFormat)
    /// Send the response stored for an earlier, identical request.
    case replay(Replay, Generation.Options, DeliveryFormat)
    /// Send a stream that another request began.
    case read(StreamReading, DeliveryFormat)
  }

  /// Decides what to do with the request.
  ///
  /// - Throws: the reason why the request is refused.
  func decide() async throws -> Decision {
    if let feature = endpoint.feature {
      isDisabled = try !isTransportEnabled || !services.isEnabled(feature, context)
    }
    if isDisabled, case .refusal = endpoint.disabledBehavior { throw Self.disabled(endpoint.disabledBehavior) }
    // A JSON response has no dialect, so `?dialect=` has no effect on it.
    let dialect = try endpoint.dialect.map { (own) throws(Failure) in
      try DialectKind.selected(by: context.head, own: own)
    }
    if let decision = try await decisionWithoutModel(dialect) { return decision }
    // A conflict needs no slot, and neither does a further reader. All other requests acquire one before a body is parsed
    // or a replay is read, because a user without a free slot must not cause that work.
    let key = try idempotencyKey()
    if let key, !services.unsaved.contains(key: key, of: context.user),
      let stream = await services.store.runningStream(of: key, context.user)
    {
      return try await join(stream, dialect)
    }
    try await acquireSlot()
    // Draining can have begun in the meantime; it waits only for requests that hold a slot.
    if services.isDraining { throw Failure.draining }
    if let key {
      switch try await acquire(key) {
      case .acquired(let lock): idempotencyLock = lock
      case .inProgress(let stream): return try await join(stream, dialect)
      case .completed(let replay):
        return try await self.replay((replay, Digest(of: key).hex), dialect)
      }
    }
    let message = try await countMessage()
    do {
      let request = try await endpoint.validate(context)
      var options = Generation.Options(retainsText: request.retainsText || idempotencyLock != nil)
      options.redactor = try await services.redactor(for: context.configuration)
      let metadata = request.metadata(messageID: id)
      options.transcript = transcript(metadata, isStreamed(request) ? dialect : nil, session: request.session)
      return .generate(
        request.produce, session: request.session, options,
        try format(request, dialect, metadata, isResumable: options.transcript != nil))
    } catch {
      if let message { await services.streamLimiter.removeMessage(message, of: context.user) }
      throw error
    }
  }

  private func countMessage() async throws(Failure) -> CountedMessage? {
    guard endpoint.countsAsMessage else { return nil }
    return try await services.streamLimiter.countMessage(of: context.user, context.configuration)
  }

  /// Returns the decision about a request that never calls a model: HEAD, or an EventSource that reconnects after its
  /// stream has been closed for any reason.
  private func decisionWithoutModel(_ dialect: DialectKind?) async throws -> Decision? {
    let lastEventID = context.method == "POST" ? nil : context.head.lastEventID
    guard lastEventID != nil || context.method == "HEAD" else { return nil }
    let request = try await endpoint.validate(context)
    guard let lastEventID else {
      return .respond(Response(dialect?.head(request.metadata(messageID: id)) ?? .eventStream))
    }
    if services.canResume(context.configuration),
      let transcript = services.transcripts.transcript(of: String(lastEventID.stream), for: context.user),
      let start = try StreamReading.start(of: context.head, in: transcript),
      let dialect = context.head.query("dialect") == nil ? transcript.dialect ?? dialect : dialect,
      let reading = try StreamReading(transcript, after: start, on: context.reactor.loop)
    {
      return .read(reading, .eventStream(dialect.type.init(transcript.metadata), ids: .all(of: dialect)))
    }
    // EventSource reconnects after every stream. 204 makes it stop; the model must not be called again.
    let end = Response(ResponseHead(status: 204))
    let isHere = services.transcripts.transcript(of: String(lastEventID.stream), for: context.user) != nil
    return isHere ? .respond(end) : .passOn(context.head, else: .success(end))
  }

  /// Returns the transcript of a generation that readers can come back to; nil if there must be none.
  private func transcript(_ metadata: StreamMetadata, _ dialect: DialectKind?, session: String?) -> Transcript? {
    guard services.canResume(context.configuration) else { return nil }
    // The client of a JSON response does not know the stream's id: it comes back by the key or the session.
    guard dialect != nil || session != nil || !requestDigest.isEmpty else { return nil }
    return Transcript(
      id: id, of: context.user, session: session, requestDigest: requestDigest, dialect: dialect, metadata)
  }

  /// Returns the decision to send a stored response, redacted by the current rules. It does not count as a message.
  private func replay(
    _ earlier: (replay: Replay, key: String), _ dialect: DialectKind?
  ) async throws -> Decision {
    let replay = earlier.replay
    guard replay.request == requestDigest else { throw Self.differentRequest }
    let request = try await endpoint.validate(context)
    services.freedMemory.record(replay.text.utf8.count)
    try await services.finishStoring(replay, key: earlier.key, for: context.user)
    // Not resumable: the client can send the key again, and any number of replays must not be kept in memory.
    return .replay(
      try await services.redacted(replay, for: context.configuration), Generation.Options(retainsText: false),
      try format(request, dialect, request.metadata(messageID: replay.messageID), isResumable: false))
  }

  /// Returns the decision about a request whose Idempotency-Key is that of a running stream: its client reads that
  /// stream from its start.
  ///
  /// - Throws: ``Failure/Code/conflict`` if the stream can be read neither here nor in an earlier process.
  private func join(_ stream: String, _ dialect: DialectKind?) async throws -> Decision {
    guard services.canResume(context.configuration) else { throw Self.conflict(stream) }
    guard let transcript = services.transcripts.transcript(of: stream, for: context.user) else {
      var request = context.head
      request.body = context.body.bytes
      return .passOn(request, else: .failure(Self.conflict(stream)))
    }
    // First, because a user with too many readers must not cause the body to be parsed.
    guard let reading = try StreamReading(transcript, after: 0, on: context.reactor.loop) else {
      throw Self.conflict(stream)
    }
    do {
      try await digestRequest()
      guard transcript.requestDigest == requestDigest else { throw Self.differentRequest }
      let request = try await endpoint.validate(context)
      return .read(
        reading, try format(request, dialect, transcript.metadata, isResumable: true))
    } catch {
      reading.cancel()
      throw error
    }
  }

  private func format(
    _ request: GenerationRequest, _ dialect: DialectKind?, _ metadata: StreamMetadata, isResumable: Bool
  ) throws(Failure) -> DeliveryFormat {
    guard let dialect, isStreamed(request) else { return .json(request.jsonBody) }
    guard isTransportEnabled else { throw Self.disabled(endpoint.disabledBehavior) }
    return .eventStream(dialect.type.init(metadata), ids: isResumable ? .all(of: dialect) : firstIDs(of: dialect))
  }

  /// Returns whether a streaming endpoint's response is a stream rather than JSON.
  private func isStreamed(_ request: GenerationRequest) -> Bool { isWebSocket || !(isDisabled || request.wantsJSON) }

  /// Whether STREAMING_BACKEND enables streams on the transport of this one.
  private var isTransportEnabled: Bool {
    services.streamingBackend(context.configuration).enables(webSocket: isWebSocket)
  }

  /// Returns the ids of a stream that cannot be resumed: an EventSource needs one, so that its reconnection is
  /// recognised.
  private func firstIDs(of dialect: DialectKind) -> EventIDs {
    let isEventSource = context.method == "GET" && context.head.header("Accept")?.contains("text/event-stream") == true
    return isEventSource && dialect.type.allowsEventID ? .first : .none
  }

  private static let differentRequest = Failure(
    .badRequest, "This Idempotency-Key was already used for a different request; use a new key.")

  static func disabled(_ behavior: StreamingEndpoint.DisabledBehavior) -> Failure {
    var alternate: String?
    if case .refusal(let path) = behavior { alternate = path }
    var failure = Failure(
      .streamingDisabled, "Streaming is disabled for this endpoint" + (alternate.map { "; use \($0) instead." } ?? "."))
    failure.alternate = alternate
    return failure
  }
}

extension Configuration {
  /// Returns the part of a response that is stored: reasoning only where the administrator wants it.
  func stored(_ more: OutputChunk?) -> OutputChunk? {
    guard let stored = storesReasoning ? more : more?.withoutReasoning, !stored.isEmpty else { return nil }
    return stored
  }

  /// The limits of each generation at a location.
  var generationLimits: GenerationLimits {
    GenerationLimits(
      firstToken: firstTokenTimeout, idle: idleTimeout, total: streamTimeout, maximumTextBytes: maximumResponseBytes)
  }
}
