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
  let jsonBody: DeliveryFormat.JSONBody

  static let api = ConversationFields(
    message: "message", session: "sessionId", hasStreamField: true,
    jsonBody: { result, text in
      [
        "messageId": .string(result.messageID ?? ""), "sessionId": .string(result.sessionID ?? ""),
        "message": .string(text),
      ]
    })

  static let messages = ConversationFields(
    message: "content", session: "chat_id", needsSession: true,
    jsonBody: { result, text in
      StoredMessage(
        id: result.messageID ?? "", chat: result.sessionID ?? "", role: .assistant, content: text,
        at: result.completedAt ?? Timestamp.now
      ).json
    })

  static let chat = ConversationFields(
    message: "message", session: "session_id",
    jsonBody: { result, text in
      [
        "message_id": .string(result.messageID ?? ""), "session_id": .string(result.sessionID ?? ""),
        "message": .string(text),
      ]
    })
}

extension Services {
  /// One turn of a conversation: what was said before goes with the question, the answer is streamed, and when it is
  /// complete, and only then, the turn is stored.
  func chat(_ names: ConversationFields) -> StreamingEndpoint.Validator {
    { context in
      let limit = context.configuration.maximumMessageBytes
      let asked = try await RequestFields.parse(context, on: self.parsing) { (fields) throws(Failure) in
        (
          message: try fields.string(names.message, limit: limit), session: try fields.identifier(names.session),
          wantsJSON: names.hasStreamField ? try !fields.bool("stream", default: true) : false
        )
      }
      guard asked.session != nil || !names.needsSession else {
        throw Failure(.badRequest, "\"\(names.session)\" is required; choose any id that matches [A-Za-z0-9_-]{1,64}.")
      }
      let session = asked.session ?? Identifier.make()
      return GenerationRequest(
        message: asked.message, model: context.configuration.model, session: session, wantsJSON: asked.wantsJSON,
        produce: { generation, idempotencyLock in
          let (output, isNew) = try await self.startGeneration(
            asked.message, in: asked.session, instructions: try self.prompts.text("chat"), context,
            on: generation.reactor)
          let completion = try await generation.relay(output, isLast: true)
          return try await self.storeTurn(
            of: generation, asked.message, in: session, isNew: isNew, completion, idempotencyLock, context)
        }, jsonBody: names.jsonBody)
    }
  }
}
