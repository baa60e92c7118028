import EventLoop
import JSON
import Upstream

/// The field names of a conversation endpoint, and its JSON response.
struct ConversationFields: Sendable {
  /// The name of the field with the user's message.
  let message: String
  /// The name of the field with the session's id.
  let session: String
  /// Whether the client must name the session. Otherwise a request without one starts a new session.
  var needsSession = false
  /// Whether the client can send the request of the AI SDK's `useChat` instead.
  var takesUIMessages = false
  /// Whether the client can request a JSON response with `"stream": false`.
  var hasStreamField = false
  /// The body of the JSON response.
  let jsonBody: DeliveryFormat.JSONBody

  static let api = ConversationFields(
    message: "message", session: "sessionId", takesUIMessages: true, hasStreamField: true,
    jsonBody: { result, text in
      var members: JSON.Members = [
        "messageId": .string(result.messageID ?? ""), "sessionId": .string(result.sessionID ?? ""),
        "message": .string(text),
      ]
      members["finishReason"] = result.cutReason
      members.append(result.outputMembers(toolCalls: "toolCalls"))
      return .object(members)
    })

  static let messages = ConversationFields(
    message: "content", session: "chat_id", needsSession: true,
    jsonBody: { result, text in
      StoredMessage(
        id: result.messageID ?? "", chat: result.sessionID ?? "", role: .assistant, content: text,
        at: result.completedAt ?? Timestamp.now, cutReason: result.cutReason,
        more: result.outputMembers(toolCalls: "tool_calls")
      ).json
    })

  static let chat = ConversationFields(
    message: "message", session: "session_id",
    jsonBody: { result, text in
      var members: JSON.Members = [
        "message_id": .string(result.messageID ?? ""), "session_id": .string(result.sessionID ?? ""),
        "message": .string(text),
      ]
      members["finish_reason"] = result.cutReason
      members.append(result.outputMembers(toolCalls: "tool_calls"))
      return .object(members)
    })
}

extension RequestFields {
  /// Returns the user's newest message of an AI SDK request, `{id, messages:[{role, parts}], trigger}`; nil if the
  /// request is another one. The session `id` has the earlier messages, so their text is ignored.
  fileprivate func uiMessage(limit: Int) throws(Failure) -> String? {
    guard let field = self["messages"] else { return nil }
    guard case .array(let messages) = field else { throw Failure(.badRequest, "\"messages\" must be an array.") }
    var newest: String?
    for (index, message) in messages.enumerated() {
      let name = "messages[\(index)]"
      guard let role = message["role"]?.string, ["system", "user", "assistant"].contains(role) else {
        throw Failure(.badRequest, "\"\(name).role\" must be system, user or assistant.")
      }
      guard case .array(let parts)? = message["parts"] else {
        throw Failure(.badRequest, "\"\(name).parts\" must be an array.")
      }
      if role == "user" { newest = try Self.text(of: parts, name, limit: limit) }
    }
    guard let newest, !newest.isEmpty else {
      throw Failure(.badRequest, "\"messages\" must end with text of the user.")
    }
    return newest
  }

  private static func text(of parts: [JSON], _ name: String, limit: Int) throws(Failure) -> String {
    var text = ""
    for (index, part) in parts.enumerated() {
      guard part["type"]?.string == "text", let piece = part["text"]?.string, !piece.isEmpty else {
        throw Failure(
          .badRequest,
          "\"\(name).parts[\(index)]\" must be a non-empty text: other parts of the user are not supported.")
      }
      text += piece
    }
    guard text.utf8.count <= limit else {
      throw Failure(.payloadTooLarge, "\"\(name).parts\" exceeds the limit of \(limit) bytes.")
    }
    return text
  }
}

extension Services {
  /// Returns the validator of one turn of a conversation. Earlier turns are sent with the prompt, the output is
  /// streamed, and the turn is stored only if the response is complete.
  func chat(_ names: ConversationFields) -> StreamingEndpoint.Validator {
    { context in
      let limit = context.configuration.maximumMessageBytes
      let input = try await RequestFields.parse(context, on: self.parsing) {
        (fields) throws(Failure) -> (message: String, session: String?, wantsJSON: Bool) in
        let takesUIMessages = names.takesUIMessages && fields[names.message] == nil
        let own = takesUIMessages ? try fields.uiMessage(limit: limit) : nil
        let message = if let own { own } else { try fields.string(names.message, limit: limit) }
        return (
          message: message,
          session: try fields.identifier(own == nil ? names.session : "id"),
          wantsJSON: names.hasStreamField ? try !fields.bool("stream", default: true) : false
        )
      }
      guard input.session != nil || !names.needsSession else {
        throw Failure(.badRequest, "\"\(names.session)\" is required; choose any id that matches [A-Za-z0-9_-]{1,64}.")
      }
      let session = input.session ?? Identifier.make()
      return GenerationRequest(
        message: input.message, model: context.configuration.model, session: session, wantsJSON: input.wantsJSON,
        produce: { generation, idempotencyLock in
          let (output, isNew) = try await self.startGeneration(
            input.message, in: input.session, instructions: try context.parts.prompts.text("chat"), context,
            on: generation.reactor)
          let completion = try await generation.relay(output, isLast: true)
          return try await self.storeTurn(
            of: generation, input.message, in: session, isNew: isNew, completion, idempotencyLock, context)
        }, jsonBody: names.jsonBody)
    }
  }
}
