import EventLoop
import Upstream

/// The words in which an endpoint speaks of a conversation.
struct Conversation: Sendable {
  /// The field with what the user says.
  let message: String
  /// The field with the session's id.
  let session: String
  /// Whether the client must name the session. Otherwise one is begun for it.
  var needsSession = false
  /// Whether the client may ask for one piece by `"stream": false`.
  var hasStreamField = false
  /// The answer in one piece.
  let whole: Question.Whole

  static let api = Conversation(
    message: "message", session: "sessionId", hasStreamField: true,
    whole: { finish, text in
      [
        "messageId": .string(finish.messageID ?? ""), "sessionId": .string(finish.sessionID ?? ""),
        "message": .string(text),
      ]
    })

  static let messages = Conversation(
    message: "content", session: "chat_id", needsSession: true,
    whole: { finish, text in
      StoredMessage(
        id: finish.messageID ?? "", chat: finish.sessionID ?? "", role: .assistant, content: text,
        at: finish.at ?? Timestamp.now
      ).json
    })

  static let chat = Conversation(
    message: "message", session: "session_id",
    whole: { finish, text in
      [
        "message_id": .string(finish.messageID ?? ""), "session_id": .string(finish.sessionID ?? ""),
        "message": .string(text),
      ]
    })
}

extension Services {
  /// One turn of a conversation: what was said before goes with the question, the answer is streamed, and when it is
  /// complete, and only then, the turn is stored.
  func converse(_ words: Conversation) -> StreamingEndpoint.Ask {
    { call in
      let fields = try await RequestFields.read(call, on: self.parsing)
      let message = try fields.text(words.message, limit: call.configuration.maximumMessageBytes)
      let named = try fields.identifier(words.session)
      guard named != nil || !words.needsSession else {
        throw Failure(.badRequest, "\"\(words.session)\" must name the conversation: any id that you choose.")
      }
      let session = named ?? Identifier.make()
      return Question(
        message: message, model: call.configuration.model,
        wantsWhole: words.hasStreamField ? try !fields.flag("stream", default: true) : false,
        answer: { stream in
          let answer = try await self.ask(
            message, of: named, instructions: try self.prompts.text("chat"), call, stream)
          let completion = try await stream.relay(answer)
          let at = try await self.keep(stream, message, in: session, completion, call)
          return Finish(messageID: stream.messageID, sessionID: session, at: at, completion: completion)
        }, whole: words.whole)
    }
  }

  /// Asks the model. The turns of `session`, where there is one, go with the question.
  ///
  /// - Parameter instructions: the endpoint's own, which follow the location's system prompt.
  nonisolated(nonsending) func ask(
    _ message: String, of session: String?, instructions: String?, _ call: Call, _ stream: ResponseStream
  ) async throws -> Answer {
    var messages: [Message] = []
    let system = [try prompts.systemPrompt(call), instructions].compactMap { $0 }.filter { !$0.isEmpty }
    if !system.isEmpty { messages.append(Message(.system, system.joined(separator: "\n\n"))) }
    if let session {
      do {
        let page = Page.history(turns: call.configuration.historyTurns)
        for turn in page.limit > 0 ? try await store.turns(of: session, user: call.user, page) ?? [] : [] {
          messages.append(Message(.user, turn.user.content))
          messages.append(Message(.assistant, turn.assistant.content))
        }
      } catch {
        throw Failure(.internalError, "The session cannot be read.", detail: "\(error)")
      }
    }
    messages.append(Message(.user, message))
    return try start(
      Prompt(messages: messages, model: call.configuration.model, maximumTokens: call.configuration.maximumTokens),
      call,
      stream)
  }

  func start(_ prompt: Prompt, _ call: Call, _ stream: ResponseStream) throws -> Answer {
    // Whoever has gone meanwhile costs the model nothing.
    try Task.checkCancellation()
    var prompt = prompt
    prompt.echoGap = call.configuration.echoGap
    return generator(for: call.configuration).start(prompt, on: stream.reactor)
  }

  /// Stores a turn that is complete. Its id is the stream's.
  ///
  /// - Returns: when it was complete.
  nonisolated(nonsending) func keep(
    _ stream: ResponseStream, _ message: String, in session: String, _ completion: Completion, _ call: Call
  ) async throws -> String {
    let turn = Turn(
      id: stream.messageID, at: Timestamp.now, user: message, assistant: stream.text, completion: completion,
      model: call.configuration.model)
    do throws(Failure) {
      try await storing("The answer is complete, but it could not be stored.") {
        try await store.append(turn, to: session, user: call.user)
      }
    } catch {
      // The client is told; what it has seen is kept all the same, as soon as that can be.
      unsaved.add(turn, to: session, of: call.user, key: call.request.header("Idempotency-Key"))
      throw error
    }
    return turn.at
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
