import EventLoop
import Upstream

/// The start of generation: history, system prompt and generator.
extension Services {
  /// Returns the earlier turns of a session that are sent with a prompt; nil if the session is nil or does not exist.
  nonisolated(nonsending) func history(
    of session: String?, _ context: RequestContext
  ) async throws(Failure) -> [Message]? {
    let page = Page.history(turns: context.configuration.historyTurns)
    guard let session else { return nil }
    do {
      guard page.limit > 0 else { return try await turns.hasSession(session, of: context.user) ? [] : nil }
      return try await turns.turns(of: session, of: context.user, page).map { turns in
        // An embedder's store may ignore the page's byte limit.
        var bytes = 0
        let newest = turns.reversed().prefix { turn in
          bytes += turn.user.content.utf8.count + turn.assistant.content.utf8.count
          if !turn.assistant.members.all.isEmpty { bytes += turn.assistant.json.encoded.count }
          return bytes <= page.maximumBytes
        }
        return newest.reversed().flatMap(\.messages)
      }
    } catch {
      throw Failure(.internalError, "The session could not be read.", detail: "\(error)")
    }
  }

  /// Starts the output for a message with the earlier turns of its session. They are not retained while the output is
  /// streamed.
  ///
  /// - Returns: the output, and whether the session is new: nil, or not found in the store.
  nonisolated(nonsending) func startGeneration(
    _ message: String, in session: String?, instructions: String?, _ context: RequestContext, on reactor: Reactor
  ) async throws -> (ModelOutput, isNew: Bool) {
    let history = try await history(of: session, context)
    let output = try startGeneration(
      message, after: history ?? [], instructions: instructions, context, on: reactor)
    return (output, isNew: history == nil)
  }

  /// Starts the output for a message.
  ///
  /// - Parameters:
  ///   - history: the earlier messages, oldest first.
  ///   - instructions: the endpoint's instructions, which follow the location's system prompt.
  func startGeneration(
    _ message: String, after history: [Message] = [], instructions: String?, _ context: RequestContext,
    on reactor: Reactor
  ) throws -> ModelOutput {
    var messages: [Message] = []
    let system = [try systemPrompt(context), instructions].compactMap { $0 }.filter { !$0.isEmpty }
    if !system.isEmpty { messages.append(Message(.system, system.joined(separator: "\n\n"))) }
    messages += history
    messages.append(Message(.user, message))
    return try startGeneration(
      Prompt(
        messages: messages, model: context.configuration.model, maximumTokens: context.configuration.maximumTokens),
      context, on: reactor)
  }

  /// Starts the output for a prompt, from the generator of the request's location.
  func startGeneration(_ prompt: Prompt, _ context: RequestContext, on reactor: Reactor) throws -> ModelOutput {
    // Do not call the model for a client that has disconnected in the meantime.
    try Task.checkCancellation()
    freedMemory.record(prompt.messages.reduce(0) { $0 + $1.content.utf8.count })
    return try context.parts.generator(for: context.configuration).start(prompt, on: reactor)
  }

  /// Returns an embedder's prompt with the system prompt, model and token limit of the request's location applied.
  func completed(_ prompt: Prompt, _ context: RequestContext) throws(Failure) -> Prompt {
    var prompt = prompt
    let configuration = context.configuration
    if let system = try systemPrompt(context), !system.isEmpty {
      prompt.messages.insert(Message(.system, system), at: 0)
    }
    prompt.model = prompt.model ?? configuration.model
    if let limit = configuration.maximumTokens { prompt.maximumTokens = min(prompt.maximumTokens ?? limit, limit) }
    return prompt
  }

  /// Returns the system prompt of a request's location, which precedes all other messages.
  func systemPrompt(_ context: RequestContext) throws(Failure) -> String? {
    try context.configuration.systemPromptFile.map { (path) throws(Failure) in try context.parts.prompts.file(path) }
  }
}
