import EventLoop
import FastCGI
import JSON
import Upstream

extension Services {
  /// GET /api/sessions: lists the user's sessions, those with the newest turns first.
  nonisolated(nonsending) func listSessions(_ context: RequestContext) async throws -> Response {
    let page = try Page(context.request)
    guard let sessions = try await readingStore({ try await turns.sessions(of: context.user, page) }) else {
      throw Failure(.notFound, "The session named in \"before\" no longer exists; start again from the first page.")
    }
    return .json([
      "sessions": .array(
        sessions.map {
          ["id": .string($0.id), "updatedAt": .string($0.updatedAt), "turns": .integer($0.turns)]
        })
    ])
  }

  /// GET /api/sessions/{id}: returns a session's newest turns, in chronological order.
  nonisolated(nonsending) func readSession(_ context: RequestContext) async throws -> Response {
    let id = context.pathParameters["id"] ?? ""
    let turns = try await turns(of: id, try Page(context.request), context)
    let rules = try await redactionRules(for: context.configuration)
    // The turns can amount to megabytes, which must not be encoded on the loop.
    return try await pool.run { () throws(Failure) in
      let list = try turns.map { (turn) throws(Failure) -> JSON in
        let turn = try turn.redacted(by: rules)
        var answer: JSON.Members = ["content": .string(turn.assistant.content)]
        answer["finishReason"] = turn.completion.cutReason
        answer.append(turn.response.outputMembers(toolCalls: "toolCalls"))
        if !turn.response.reasoning.isEmpty { answer["reasoning"] = .string(turn.response.reasoning) }
        return [
          "id": .string(turn.id), "at": .string(turn.at), "user": ["content": .string(turn.user.content)],
          "assistant": .object(answer),
        ]
      }
      return .json(["id": .string(id), "turns": .array(list)])
    }
  }

  /// DELETE /api/sessions/{id}: deletes a session and stops its streams.
  nonisolated(nonsending) func deleteSession(_ context: RequestContext) async throws -> Response {
    let id = context.pathParameters["id"] ?? ""
    guard Identifier.isValid(id) else { throw Failure.noSuchSession }
    // A running stream would store its turn and thereby create the session again.
    let hadStreams = await stopStreams(ofSession: id, of: context.user)
    transcripts.removeAll(ofSession: id, of: context.user)
    let (unsaved, user) = (unsaved, context.user)
    await pool.run { unsaved.discard(session: id, of: user) }
    let isDeleted = try await writingStore("The session could not be deleted.") {
      // Remove the replays first: a turn that one of them stores in the meantime is then deleted with the session.
      await store.removeReplays(of: id, user)
      return try await turns.deleteSession(id, of: user)
    }
    guard isDeleted || hadStreams else { throw Failure.noSuchSession }
    return Response(ResponseHead(status: 204))
  }

  /// GET /messages/?chat_id=: returns the turns of a conversation, each as two messages: the user's and the assistant's.
  nonisolated(nonsending) func listMessages(_ context: RequestContext) async throws -> Response {
    let named = try await RequestFields.parse(context, on: parsing) { (fields) throws(Failure) in
      try fields.identifier("chat_id")
    }
    guard let chat = named else {
      throw Failure(.badRequest, "\"chat_id\" is required: /messages/?chat_id=ID.")
    }
    let given = try Page(context.request)
    let page = Page(limit: given.limit, before: given.before.map(StoredMessage.turnID))
    // A conversation is created by its first message. Until then it is empty, not missing.
    let turns = try await readingStore { try await self.turns.turns(of: chat, of: context.user, page) } ?? []
    let rules = try await redactionRules(for: context.configuration)
    return try await pool.run { () throws(Failure) in
      var messages: [JSON] = []
      for turn in turns {
        let userMessage = StoredMessage(
          id: turn.id + StoredMessage.userSuffix, chat: chat, role: .user, content: turn.user.content, at: turn.at)
        let turn = try turn.redacted(by: rules)
        let assistantMessage = StoredMessage(
          id: turn.id, chat: chat, role: .assistant, content: turn.assistant.content, at: turn.at,
          cutReason: turn.completion.cutReason, more: turn.response.outputMembers(toolCalls: "tool_calls"))
        messages += [userMessage.json, assistantMessage.json]
      }
      return .json(["messages": .array(messages)])
    }
  }

  private nonisolated(nonsending) func turns(of session: String, _ page: Page, _ context: RequestContext) async throws
    -> [Turn]
  {
    guard Identifier.isValid(session),
      let turns = try await readingStore({ try await self.turns.turns(of: session, of: context.user, page) })
    else { throw Failure.noSuchSession }
    return turns
  }
}

extension Turn {
  /// Returns the turn with its response redacted.
  fileprivate func redacted(by rules: [RedactionRules.Rule]) throws(Failure) -> Turn {
    var turn = self
    turn.assistant.content = try Redactor.redact(assistant.content, by: rules)
    if !rules.isEmpty, !assistant.members.all.isEmpty {
      turn.assistant.members = try Redactor.redact(message: assistant.members, by: rules)
    }
    return turn
  }
}

extension Failure {
  static let noSuchSession = Failure(.notFound, "Session not found.")
}

/// A message in the format of /messages/.
struct StoredMessage {
  let id: String
  let chat: String
  let role: Message.Role
  let content: String
  let at: String
  /// The finish reason of an answer that the model did not end by itself.
  var cutReason: JSON?
  /// The refusal and the calls of tools of an answer.
  var more: JSON.Members = [:]

  /// The suffix that distinguishes the id of a user's message from the id of the turn, which is that of the
  /// assistant's.
  static let userSuffix = "-user"

  static func turnID(_ messageID: String) -> String {
    messageID.hasSuffix(userSuffix) ? String(messageID.dropLast(userSuffix.count)) : messageID
  }

  var json: JSON {
    var members: JSON.Members = [
      "id": .string(id), "chat_id": .string(chat), "role": .string(role.rawValue), "content": .string(content),
      "created_at": .string(at),
    ]
    members["finish_reason"] = cutReason
    members.append(more)
    return .object(members)
  }
}
