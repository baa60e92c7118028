import EventLoop
import Upstream

/// The names in which an endpoint speaks of a conversation.
struct ConversationFields: Sendable {
  /// The field with what the user says.
  let message: String
  /// The field with the session's id.
  let session: String
  /// Whether the client must name the session. Otherwise one is begun for it.
  var needsSession = false
  /// Whether the client may ask for one piece by `"stream": false`.
  var hasStreamField = false
  /// The answer in one piece.
  let jsonBody: GenerationRequest.JSONBody

  static let api = ConversationFields(
    message: "message", session: "sessionId", hasStreamField: true,
    jsonBody: { finish, text in
      [
        "messageId": .string(finish.messageID ?? ""), "sessionId": .string(finish.sessionID ?? ""),
        "message": .string(text),
      ]
    })

  static let messages = ConversationFields(
    message: "content", session: "chat_id", needsSession: true,
    jsonBody: { finish, text in
      StoredMessage(
        id: finish.messageID ?? "", chat: finish.sessionID ?? "", role: .assistant, content: text,
        at: finish.completedAt ?? Timestamp.now
      ).json
    })

  static let chat = ConversationFields(
    message: "message", session: "session_id",
    jsonBody: { finish, text in
      [
        "message_id": .string(finish.messageID ?? ""), "session_id": .string(finish.sessionID ?? ""),
        "message": .string(text),
      ]
    })
}

extension Services {
  /// One turn of a conversation: what was said before goes with the question, the answer is streamed, and when it is
  /// complete, and only then, the turn is stored.
  func converse(_ names: ConversationFields) -> StreamingEndpoint.Validator {
    { context in
      let limit = context.configuration.maximumMessageBytes
      let asked = try await RequestFields.parse(context, on: self.parsing) { (fields) throws(Failure) in
        (
          message: try fields.text(names.message, limit: limit), session: try fields.identifier(names.session),
          wantsJSON: names.hasStreamField ? try !fields.flag("stream", default: true) : false
        )
      }
      guard asked.session != nil || !names.needsSession else {
        throw Failure(.badRequest, "\"\(names.session)\" must name the conversation: any id that you choose.")
      }
      let session = asked.session ?? Identifier.make()
      return GenerationRequest(
        message: asked.message, model: context.configuration.model, session: session, wantsJSON: asked.wantsJSON,
        produce: { stream in
          let (answer, isNew) = try await self.ask(
            asked.message, in: asked.session, instructions: try self.prompts.text("chat"), context, stream)
          let completion = try await stream.relay(answer)
          return try await self.keep(stream, asked.message, in: session, isNew: isNew, completion, context)
        }, jsonBody: names.jsonBody)
    }
  }

  /// The earlier turns of a session that go with a question; nil when there is none, or it is not looked for.
  nonisolated(nonsending) func history(of session: String?, _ context: RequestContext) async throws(Failure)
    -> [Message]?
  {
    let page = Page.history(turns: context.configuration.historyTurns)
    guard let session else { return nil }
    guard page.limit > 0 else { return await store.hasSession(session, of: context.user) ? [] : nil }
    do {
      return try await store.turns(of: session, user: context.user, page)?.flatMap {
        [Message(.user, $0.user.content), Message(.assistant, $0.assistant.content)]
      }
    } catch {
      throw Failure(.internalError, "The session cannot be read.", detail: "\(error)")
    }
  }

  /// Asks the model, with the earlier turns of a session. They are not kept while it answers.
  ///
  /// - Returns: the answer, and whether the session is, or may be, a new one.
  nonisolated(nonsending) func ask(
    _ message: String, in session: String?, instructions: String?, _ context: RequestContext, _ stream: ResponseStream
  ) async throws -> (ModelOutput, isNew: Bool) {
    let history = try await history(of: session, context)
    return (
      try ask(message, after: history ?? [], instructions: instructions, context, stream), isNew: history == nil
    )
  }

  /// Asks the model.
  ///
  /// - Parameters:
  ///   - history: what was said before, oldest first.
  ///   - instructions: the endpoint's own, which follow the location's system prompt.
  func ask(
    _ message: String, after history: [Message] = [], instructions: String?, _ context: RequestContext,
    _ stream: ResponseStream
  ) throws -> ModelOutput {
    var messages: [Message] = []
    let system = [try prompts.systemPrompt(context), instructions].compactMap { $0 }.filter { !$0.isEmpty }
    if !system.isEmpty { messages.append(Message(.system, system.joined(separator: "\n\n"))) }
    messages += history
    messages.append(Message(.user, message))
    return try start(
      Prompt(
        messages: messages, model: context.configuration.model, maximumTokens: context.configuration.maximumTokens),
      context,
      stream)
  }

  func start(_ prompt: Prompt, _ context: RequestContext, _ stream: ResponseStream) throws -> ModelOutput {
    // Whoever has gone meanwhile costs the model nothing.
    try Task.checkCancellation()
    var prompt = prompt
    prompt.echoGap = context.configuration.echoGap
    freedMemory.note(prompt.messages.reduce(0) { $0 + $1.content.utf8.count })
    return generator(for: context.configuration).start(prompt, on: stream.reactor)
  }

  /// Stores a turn that is complete. Its id is the stream's.
  ///
  /// What its Idempotency-Key is answered with is kept first, and tells all that the turn needs: whichever of the two is
  /// missing later, because the process was killed or the store took no more, the next request with the key makes up for.
  ///
  /// - Parameter isNew: whether the session may be begun by it. One that was there and is not any more was deleted.
  nonisolated(nonsending) func keep(
    _ stream: ResponseStream, _ message: String, in session: String, isNew: Bool, _ completion: Completion,
    _ context: RequestContext
  ) async throws -> GenerationResult {
    let turn = Turn(
      id: stream.messageID, at: Timestamp.now, user: message, assistant: stream.text, completion: completion,
      model: context.configuration.model)
    let finish = GenerationResult(messageID: turn.id, sessionID: session, completedAt: turn.at, completion: completion)
    let replay = stream.claim.map {
      Replay(
        request: $0.request, messageID: turn.id, text: turn.assistant.content, finish: finish, user: message,
        model: turn.model)
    }
    guard streams.beginStoring(stream.id) else {
      stream.end(.stopped)
      throw StreamClosedError()
    }
    defer { streams.endStoring(stream.id) }
    let isStored: Bool
    do throws(Failure) {
      isStored = try await storing("The answer is complete, but it could not be stored.") {
        if let claim = stream.claim, let replay { try await store.complete(claim, with: replay) }
        return try await store.append(
          turn, to: session, user: context.user, creates: isNew, ifAbsent: stream.claim != nil)
      }
    } catch {
      // The client is told; what it has seen is kept all the same, as soon as that can be.
      unsaved.add(.turn(turn, session: session), of: context.user, replay: replay, claim: stream.claim)
      throw error
    }
    guard isStored else {
      if let claim = stream.claim { await store.discard(claim) }
      stream.end(.stopped)
      throw StreamClosedError()
    }
    return finish
  }

  /// Stores what a kept answer says was to be stored, if that is not there. It is, unless the process that gave the answer
  /// was killed or its store failed.
  ///
  /// - Parameter key: the digest of its Idempotency-Key.
  nonisolated(nonsending) func finishStoring(_ replay: Replay, key: String, for user: User) async throws(Failure) {
    let turn = replay.turn
    let report = replay.report
    guard turn != nil || report != nil else { return }
    let isKept = try await storing("The answer is complete, but it could not be stored.") {
      if let report { try await store.saveIfAbsent(report, of: user) }
      guard let turn, let session = replay.finish.sessionID else { return true }
      return try await store.finish(turn, in: session, key: key, user)
    }
    guard isKept else {
      throw Failure(.conflict, "The session of this answer has just been deleted.", retryAfter: .seconds(1))
    }
  }

  /// Does what writes to the store, and counts how that went.
  nonisolated(nonsending) func storing<Success>(
    _ message: String, _ body: () async throws -> Success
  ) async throws(Failure) -> Success {
    do {
      let result = try await body()
      metrics.stored(true)
      return result
    } catch {
      metrics.stored(false)
      throw Failure(.storeFailed, message, detail: "\(error)")
    }
  }
}
