import EventLoop
import FastCGI
import JSON
import Upstream

extension Services {
  /// POST /v1/chat/completions: OpenAI's API, streaming or JSON. The client holds the conversation and sends all of it.
  nonisolated(nonsending) func createCompletion(_ context: RequestContext) async throws -> GenerationRequest {
    let configuration = context.configuration
    let instructions = try systemPrompt(context)
    let request = try await RequestFields.parse(context, on: parsing) { (fields) throws(Failure) in
      try CompletionRequest(fields, configuration, instructions: instructions)
    }
    let model = request.model ?? context.parts.modelNames(context.configuration).first ?? "default"
    let created = Timestamp.seconds
    let pending = request.prompt
    return GenerationRequest(
      message: request.message, model: model, wantsJSON: !request.wantsStream,
      wantsUsage: request.includesUsage, retainsText: false,
      produce: { generation, _ in
        // Taken out of the request, because it can be large and the stream long-lived.
        guard let prompt = pending.withLock({ $0.take() }) else { throw StreamClosedError() }
        do {
          let completion = try await generation.relay(
            try self.startGeneration(prompt, context, on: generation.reactor))
          return GenerationResult(messageID: generation.messageID, completion: completion)
        } catch let error as GeneratorError { throw Failure(passingOn: error) }
      },
      jsonBody: { result, text in
        var members: JSON.Members = [
          "id": .string("chatcmpl-" + (result.messageID ?? "")), "object": "chat.completion",
          "created": .integer(created),
          "model": .string(model), "choices": .array(Self.choices(result, text)),
        ]
        members["usage"] = result.completion.usage?.json
        members.append(result.completion.members)
        return .object(members)
      })
  }

  /// Returns the choices of a `chat.completion`.
  ///
  /// - Parameter text: the text of the first one.
  private static func choices(_ result: GenerationResult, _ text: String) -> [JSON] {
    var first = result.more?.first ?? OutputChunk.Choice(index: 0)
    first.members["finish_reason"] = .string(result.completion.finishReason.rawValue)
    let others = (result.more?.choices ?? []).filter { $0.index != 0 }.sorted { $0.index < $1.index }
    return [choice(first, text)] + others.map { choice($0, $0.text) }
  }

  private static func choice(_ choice: OutputChunk.Choice, _ text: String) -> JSON {
    let hasOnlyMore = text.isEmpty && !choice.outputMembers(toolCalls: "tool_calls").all.isEmpty
    var message: JSON.Members = ["role": "assistant", "content": hasOnlyMore ? .null : .string(text), "refusal": .null]
    message.merge(choice.message)
    var members: JSON.Members = [
      "index": .integer(choice.index), "message": .object(message), "logprobs": .null, "finish_reason": .null,
    ]
    members.merge(choice.members)
    return .object(members)
  }

  /// POST /v1/embeddings: passed on to the model server as it is, and so is the response. It counts as a message, and as
  /// one of the user's streams while it runs.
  nonisolated(nonsending) func createEmbeddings(_ context: RequestContext) async throws -> Response {
    let slot = try await streamLimiter.acquireSlot(for: context.user, context.configuration)
    defer { withExtendedLifetime(slot) {} }
    try await parseCounted(context) { (fields) throws(Failure) in
      guard fields["input"]?.string != nil || fields["input"]?.array != nil else {
        throw Failure(.badRequest, "\"input\" must be a string or an array.")
      }
    }
    let body = context.body.bytes
    let generator = try context.parts.generator(for: context.configuration)
    do throws(GeneratorError) {
      let timeout = context.configuration.firstTokenTimeout
      if let response = try await generator.embeddings(body, within: timeout, on: context.reactor) {
        var head = ResponseHead()
        head.set("Content-Type", "application/json")
        head.set("Cache-Control", "no-store")
        return Response(head, body: response)
      }
    } catch { throw Failure(passingOn: error) }
    throw Failure(.notFound, "The model of this server has no embeddings.")
  }

  /// GET /v1/models: lists the models that can be requested: the configured model or, if none is set, the generator's.
  nonisolated(nonsending) func listModels(_ context: RequestContext) async throws -> Response {
    .json(["object": "list", "data": .array(try await models(context))])
  }

  /// GET /v1/models/{id}: returns one of them.
  nonisolated(nonsending) func readModel(_ context: RequestContext) async throws -> Response {
    let id = [context.pathParameters["owner"], context.pathParameters["id"]].compactMap(\.self).joined(separator: "/")
    guard let model = try await models(context).first(where: { $0["id"]?.string == id }) else {
      throw Failure(.notFound, "The model \(id.prefix(200)) does not exist; GET /v1/models lists those that do.")
    }
    return .json(model)
  }

  private nonisolated(nonsending) func models(_ context: RequestContext) async throws -> [JSON] {
    var models = context.parts.modelNames(context.configuration).map { (name) -> JSON in
      ["id": .string(name), "object": "model", "created": .integer(0), "owned_by": "sluice"]
    }
    if models.isEmpty {
      models = try await context.parts.generator(for: context.configuration).models(on: context.reactor) ?? []
    }
    return models
  }
}

extension Failure {
  /// Creates the failure for an error of the model server, with its refusal in its own words: the caller wrote the
  /// request that it refuses.
  fileprivate init(passingOn error: GeneratorError) {
    self.init(error)
    refusal = error.refusal
  }
}

/// A request to OpenAI's API: the fields that Sluice interprets, and all others unchanged.
private struct CompletionRequest: Sendable {
  let prompt: Locked<Prompt?>
  let model: String?
  /// The content of the last message.
  let message: String
  let wantsStream: Bool
  let includesUsage: Bool

  /// Parses and validates a request.
  ///
  /// - Parameter instructions: the location's system prompt, which precedes the client's messages.
  init(_ fields: RequestFields, _ configuration: Configuration, instructions: String?) throws(Failure) {
    guard case .array(let values)? = fields["messages"], !values.isEmpty else {
      throw Failure(.badRequest, "\"messages\" must be a non-empty array.")
    }
    var messages: [Message] = []
    if let instructions, !instructions.isEmpty { messages.append(Message(.system, instructions)) }
    for (index, value) in values.enumerated() {
      let message = try Self.message(value, at: index)
      guard message.role == .assistant || message.content.utf8.count <= configuration.maximumMessageBytes else {
        throw Failure(
          .payloadTooLarge, "\"messages[\(index)]\" exceeds the limit of \(configuration.maximumMessageBytes) bytes.")
      }
      messages.append(message)
    }
    wantsStream = try fields.bool("stream", default: false)
    includesUsage = try Self.includesUsage(fields["stream_options"])
    if let tools = fields["tools"], tools.array == nil { throw Failure(.badRequest, "\"tools\" must be an array.") }
    if configuration.redactFile != nil { try Self.refuseUnredactableFields(fields) }
    var prompt = Prompt(messages: messages, model: configuration.model)
    if let model = try fields.optionalString("model", limit: 1000), prompt.model == nil { prompt.model = model }
    // Filtered in one pass, because there can be many fields.
    prompt.parameters = JSON.Members(
      fields.members.all.filter { !Self.interpretedFields.contains($0.name) && $0.value != .null })
    if let choices = try Self.choices(fields["n"]) { prompt.parameters["n"] = .integer(choices) }
    try Self.setMaximumTokens(of: &prompt, fields, configuration.maximumTokens)
    model = prompt.model
    message = prompt.messages.last?.content ?? ""
    self.prompt = Locked(prompt)
  }

  /// The fields interpreted here. All others, such as `temperature`, `stop` and extensions of a model server, are
  /// passed on unchanged.
  private static let interpretedFields: Set = [
    "messages", "model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n",
  ]

  /// Returns a message: its text, and the object itself if it contains more than that.
  private static func message(_ value: JSON, at index: Int) throws(Failure) -> Message {
    let name = "messages[\(index)]"
    guard case .object(let members) = value, let role = members["role"]?.string.flatMap(Message.Role.init(rawValue:))
    else {
      throw Failure(.badRequest, "\"\(name).role\" must be system, developer, user, assistant, tool or function.")
    }
    if role == .tool, members["tool_call_id"]?.string == nil {
      throw Failure(.badRequest, "\"\(name).tool_call_id\" must be a string.")
    }
    if let calls = members["tool_calls"], calls != .null, calls.array == nil {
      throw Failure(.badRequest, "\"\(name).tool_calls\" must be an array.")
    }
    var hasMore = members.all.contains { $0.name != "role" && $0.name != "content" && $0.value != .null }
    var text = ""
    switch members["content"] ?? .null {
    case .string(let content): text = content
    case .null where role == .assistant: break
    case .array(let parts):
      for (number, part) in parts.enumerated() {
        if let piece = try Self.text(of: part, "\(name).content[\(number)]") { text += piece }
        if part["type"] != "text" || (part.object?.all.count ?? 0) > 2 { hasMore = true }
      }
    default: throw Failure(.badRequest, "\"\(name).content\" must be a string or an array of content parts.")
    }
    var message = Message(role, text)
    if hasMore { message.json = value }
    return message
  }

  /// Returns the text of a content part; nil if it is of another kind.
  private static func text(of part: JSON, _ name: String) throws(Failure) -> String? {
    switch part["type"]?.string {
    case "text":
      if let text = part["text"]?.string { return text }
      throw Failure(.badRequest, "\"\(name).text\" must be a string.")
    case let type? where ["image_url", "input_audio", "file"].contains(type):
      if case .object? = part[type] { return nil }
      throw Failure(.badRequest, "\"\(name).\(type)\" must be an object.")
    // A part of the model server's own.
    case .some: return nil
    default:
      throw Failure(
        .badRequest, "\"\(name)\" must be a content part with a type, such as text, image_url, input_audio or file.")
    }
  }

  private static func includesUsage(_ options: JSON?) throws(Failure) -> Bool {
    switch (options, options?["include_usage"]) {
    case (nil, _), (.object, nil), (.object, .null?): return false
    case (.object, .bool(let value)?): return value
    default:
      throw Failure(.badRequest, "\"stream_options\" must be an object whose \"include_usage\" is true or false.")
    }
  }

  /// Returns the number of choices if it is greater than one.
  private static func choices(_ field: JSON?) throws(Failure) -> Int? {
    guard let field else { return nil }
    guard let count = field.integer, (1...128).contains(count) else {
      throw Failure(.badRequest, "\"n\" must be an integer from 1 to 128.")
    }
    return count == 1 ? nil : count
  }

  /// Throws if a field requests output that contains the text once more, in a form that cannot be redacted.
  private static func refuseUnredactableFields(_ fields: RequestFields) throws(Failure) {
    for name in ["logprobs", "audio"] {
      guard let value = fields[name], value != .bool(false) else { continue }
      throw Failure(.badRequest, "\"\(name)\" is not supported here, because responses are redacted.")
    }
  }

  /// Applies the smaller of the client's token limit and the configured one, under the name that the client used for
  /// it.
  private static func setMaximumTokens(
    of prompt: inout Prompt, _ fields: RequestFields, _ limit: Int?
  ) throws(Failure) {
    prompt.maximumTokens = limit
    for name in ["max_tokens", "max_completion_tokens"] {
      // -1 stands for no limit, as in llama.cpp.
      guard let value = fields[name], value.integer != -1 else { continue }
      guard let number = value.integer, number > 0 else {
        throw Failure(.badRequest, "\"\(name)\" must be a positive integer, or -1.")
      }
      prompt.maximumTokens = nil
      prompt.parameters[name] = .integer(min(limit ?? number, number))
    }
  }
}
