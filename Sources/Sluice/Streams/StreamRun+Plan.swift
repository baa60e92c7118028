import FastCGI
import JSON

/// What is found out before anything is written.
extension StreamRun {
  /// What is done about a valid request.
  enum Plan {
    /// There is nothing to stream.
    case answer(Response)
    case stream(Question, ResponseStream.Form, ReplayClaim?)
    /// It was answered before.
    case replay(Replay, ResponseStream.Form)
  }

  /// - Throws: why the request is refused.
  func prepare() async throws -> Plan {
    if services.isDraining { throw Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5)) }
    let isOff = endpoint.feature.map { !call.configuration.has($0) } ?? false
    if isOff, case .refusal(let twin) = endpoint.alternative { throw Self.disabled(twin) }
    // What answers in one piece has no dialect to choose.
    let dialect = try endpoint.dialect.map { own in try call.request.query("dialect").map(Dialects.named) ?? own }
    let question = try await endpoint.ask(call)
    let method = call.request.method
    // An EventSource reconnects when a stream is over, however it ended. A model must not answer again for that.
    if method != "POST", call.request.header("Last-Event-ID") != nil {
      return .answer(Response(ResponseHead(status: 204)))
    }
    var description = StreamDescription(messageID: id)
    description.message = question.message
    description.model = question.model ?? description.model
    description.wantsUsage = question.wantsUsage
    if method == "HEAD" {
      var head = ResponseHead.eventStream
      dialect?.init(description).addFields(to: &head)
      return .answer(Response(head))
    }
    let isWhole = dialect == nil || isOff || question.wantsWhole
    if endpoint.keepsAnswers, method == "POST", let key = call.request.header("Idempotency-Key") {
      return try await plan(question, dialect, description, isWhole: isWhole, key: key)
    }
    var form = form(question, dialect, description, isWhole: isWhole)
    form.redactor = try services.redactor(for: call.configuration)
    try await admit()
    return .stream(question, form, nil)
  }

  /// What is done about a request that may have been sent before.
  private func plan(
    _ question: Question, _ dialect: (any Dialect.Type)?, _ description: StreamDescription, isWhole: Bool, key: String
  ) async throws -> Plan {
    switch try await claim(key) {
    case .free(let claim):
      _ = requestDigest
      // An earlier answer that waits to be stored would be there twice.
      services.unsaved.forget(key: key, of: call.user)
      var form = form(question, dialect, description, isWhole: isWhole)
      form.keepsText = true
      do {
        form.redactor = try services.redactor(for: call.configuration)
        try await admit()
      } catch {
        await services.store.abandon(claim)
        throw error
      }
      return .stream(question, form, claim)
    case .running(let stream):
      var failure = Failure(
        .conflict, "The stream \(stream) answers the request with this Idempotency-Key now.", retryAfter: .seconds(1))
      failure.streamID = stream
      throw failure
    case .complete(let replay):
      guard replay.request == requestDigest else {
        throw Failure(.badRequest, "This Idempotency-Key was sent with another request: a new request needs a new one.")
      }
      var description = description
      description.messageID = replay.messageID
      var form = form(question, dialect, description, isWhole: isWhole)
      form.keepsText = false
      // Patterns may have been added since.
      form.redactor = try services.redactor(for: call.configuration)
      try await takeSlot()
      return .replay(replay, form)
    }
  }

  private func form(
    _ question: Question, _ dialect: (any Dialect.Type)?, _ description: StreamDescription, isWhole: Bool
  ) -> ResponseStream.Form {
    let dialect = dialect ?? EventsDialect.self
    let request = call.request
    let isEventSource = request.method == "GET" && request.header("Accept")?.contains("text/event-stream") == true
    return ResponseStream.Form(
      dialect: dialect.init(description), whole: isWhole ? question.whole : nil, keepsText: question.keepsText,
      sendsID: isEventSource && dialect.allowsEventID)
  }

  private func claim(_ key: String) async throws -> ReplayState {
    guard (1...255).contains(key.utf8.count), key.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw Failure(.badRequest, "An Idempotency-Key must be 1 to 255 visible ASCII characters.")
    }
    do { return try await services.store.claimReplay(of: key, by: id, call.user) } catch {
      throw Failure(.storeFailed, "The Idempotency-Key could not be looked up.", detail: "\(error)")
    }
  }

  private static func disabled(_ twin: String?) -> Failure {
    var failure = Failure(
      .streamingDisabled, "Streaming is turned off here" + (twin.map { "; \($0) answers in one piece." } ?? "."))
    failure.alternate = twin
    return failure
  }
}
