import EventLoop
import Upstream

extension Services {
  /// POST /api/chat: `{"message","sessionId"?,"stream"?}`, answered in the dialect `events` or, with `"stream":false`
  /// or the flag off, in JSON.
  var chat: StreamingEndpoint {
    StreamingEndpoint(
      dialect: EventsDialect.self,
      ask: { call in
        let body = try await RequestBody.read(call, on: self.pool)
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
  ///
  /// Three functions, because what one of them needs is not kept while a stream waits for the next.
  nonisolated(nonsending) func converse(
    _ call: Call, _ question: StreamingEndpoint.Question, _ stream: ResponseStream
  ) async throws -> Finish {
    let answer = try await ask(call, question, on: stream.reactor)
    let completion = try await stream.relay(answer)
    return try await keep(completion, call, question, stream)
  }

  private nonisolated(nonsending) func ask(
    _ call: Call, _ question: StreamingEndpoint.Question, on reactor: Reactor
  ) async throws -> Answer {
    let configuration = call.configuration
    var messages: [Message] = []
    if let path = configuration.systemPromptFile { messages.append(Message(.system, try prompts.text(path))) }
    if let session = question.sessionID {
      do {
        let turns = try await store.turns(of: session, user: call.user, newest: configuration.historyTurns)
        for turn in Self.newest(turns, bytes: Self.maximumHistoryBytes) {
          messages.append(Message(.user, turn.user.content))
          messages.append(Message(.assistant, turn.assistant.content))
        }
      } catch {
        throw Failure(.internalError, "The session cannot be read.", detail: "\(error)")
      }
    }
    messages.append(Message(.user, question.message))
    // Whoever has gone meanwhile costs the model nothing.
    try Task.checkCancellation()
    return generator(for: configuration).start(
      Prompt(
        messages: messages, model: configuration.model, maximumTokens: configuration.maximumTokens,
        echoGap: configuration.echoGap), on: reactor)
  }

  /// What goes with a question is encoded on the loop, and no model reads more.
  private static let maximumHistoryBytes = 512 << 10

  /// The newest of `turns` that together have no more than `bytes` of text.
  static func newest(_ turns: [Turn], bytes: Int) -> ArraySlice<Turn> {
    var rest = bytes
    var start = turns.count
    for (index, turn) in turns.enumerated().reversed() {
      rest -= turn.user.content.utf8.count + turn.assistant.content.utf8.count
      if rest < 0 { break }
      start = index
    }
    return turns[start...]
  }

  private nonisolated(nonsending) func keep(
    _ completion: Completion, _ call: Call, _ question: StreamingEndpoint.Question, _ stream: ResponseStream
  ) async throws -> Finish {
    guard let session = question.sessionID else { return Finish(completion: completion) }
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
