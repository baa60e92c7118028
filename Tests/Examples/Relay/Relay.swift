import Sluice

/// Relays a model's output, with a custom prompt, dialect, authenticator and generator.
@main
struct Relay {
  static func main() async throws {
    let application = try Application(generator: Haiku(), authenticator: Doorkeeper())
    application.stream("POST", "/summary", dialect: DialectKind(LinesDialect.self)) { context, stream in
      guard let text = try context.json()["text"]?.string, !text.isEmpty else {
        throw Failure(.badRequest, "\"text\" must be a non-empty string.")
      }
      try await stream.relay(
        Prompt(messages: [Message(.system, "Summarise in one sentence."), Message(.user, text)]))
      try await stream.send("\nSummarised for \(context.user.name).")
    }
    application.handle("GET", "/version", isPublic: true) { context in .json(["version": "1"]) }
    try await application.run()
  }
}

/// A dialect with one JSON object per delta, in the `data` of an unnamed record.
struct LinesDialect: Dialect {
  static let name = "lines"
  private static let line = RecordTemplate(#"{"line":"#, "}")

  init(_ stream: StreamMetadata) {}

  mutating func encode(_ event: StreamEvent, into records: inout Records) {
    switch event {
    case .started: break
    case .delta(let text): records.append(Self.line, text)
    case .part: break  // reasoning, tool calls, a refusal, a source
    case .heartbeat: records.appendHeartbeat()
    case .completed: records.append(event: "end", ["ok": true])
    case .failed(let failure): records.append(event: "error", failure.json)
    case .cancelled(let reason): records.append(event: "cancelled", ["reason": .string(reason)])
    }
  }
}

/// A generator that needs no model server.
struct Haiku: Generator {
  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
    guard let text = prompt.messages.last?.content else {
      throw GeneratorError(.failed, "There is nothing to summarise.")
    }
    output.accept()
    for line in ["\(text.count) characters,\n", "all of them read with great care:\n", "nothing is left out."] {
      try await output.yield(line)
      try await Task.sleep(for: .milliseconds(50))
    }
    return Completion(.stop)
  }
}

/// An authenticator that accepts any user name in the field `X-User`, without a secret.
struct Doorkeeper: Authenticator {
  nonisolated(nonsending) func authenticate(_ request: Request) async throws -> User {
    guard let user = request.header("X-User").flatMap(User.init) else {
      throw Failure(.unauthorized, "Say who you are: X-User: NAME.")
    }
    return user
  }
}
