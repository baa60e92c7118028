import Upstream

extension Services {
  /// POST /api/chat: `{"message","sessionId"?,"stream"?}`, answered in the dialect `events` or, with `"stream":false`
  /// or the flag off, in JSON.
  var chat: StreamingEndpoint {
    StreamingEndpoint(
      dialect: EventsDialect.self,
      ask: { call in
        let body = try RequestBody(call.request, limit: call.configuration.maximumBodyBytes)
        return StreamingEndpoint.Question(
          message: try body.text("message", limit: call.configuration.maximumMessageBytes),
          sessionID: try body.identifier("sessionId") ?? Identifier.make(),
          wantsWhole: try !body.flag("stream", default: true) || !call.configuration.streamsChat)
      },
      run: { call, question, stream in try await self.converse(call, question, stream) },
      whole: { finish, text in
        .json([
          "messageId": .string(finish.messageID ?? ""), "sessionId": .string(finish.sessionID ?? ""),
          "message": .string(text),
        ])
      })
  }

  /// One turn of a conversation: what was said before goes with the question, the answer is streamed, and when it is
  /// complete, and only then, the turn is stored.
  nonisolated(nonsending) func converse(
    _ call: Call, _ question: StreamingEndpoint.Question, _ stream: ResponseStream
  ) async throws -> Finish {
    let session = question.sessionID ?? Identifier.make()
    var messages: [Message] = []
    if let path = call.configuration.systemPromptFile { messages.append(Message(.system, try prompts.text(path))) }
    let earlier: [Turn]
    do {
      earlier = try await store.turns(of: session, user: call.user, newest: call.configuration.historyTurns)
    } catch {
      throw Failure(.internalError, "The session cannot be read.", detail: "\(error)")
    }
    for turn in earlier {
      messages.append(Message(.user, turn.user.content))
      messages.append(Message(.assistant, turn.assistant.content))
    }
    messages.append(Message(.user, question.message))
    let completion = try await stream.relay(generator(for: call.configuration).start(
      Prompt(
        messages: messages, model: call.configuration.model, maximumTokens: call.configuration.maximumTokens,
        echoGap: call.configuration.echoGap), on: stream.reactor))
    let turn = Turn(
      id: Identifier.make(), at: Timestamp.now, user: question.message, assistant: stream.text, completion: completion,
      model: call.configuration.model)
    do {
      try await store.append(turn, to: session, user: call.user)
    } catch {
      throw Failure(.storeFailed, "The answer is complete, but it could not be stored.", detail: "\(error)")
    }
    return Finish(messageID: turn.id, sessionID: session, completion: completion)
  }
}
