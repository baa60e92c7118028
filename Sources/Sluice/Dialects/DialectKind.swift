import FastCGI

/// A dialect that streams can use: a built-in one or one of an embedder.
public struct DialectKind: Sendable {
  let type: any Dialect.Type

  /// Creates a dialect from an embedder's own type, for the embedder's routes. Its name must match `[a-z0-9-]+` and
  /// differ from the names of the built-in dialects.
  public init(_ type: any Dialect.Type) {
    let name = type.name
    let isValid = !name.isEmpty && name.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber || $0 == "-") }
    precondition(isValid, "\"\(name)\" is not a valid dialect name")
    precondition(!Self.builtIn.contains { $0.type.name == name }, "the dialect \(name) exists already")
    self.init(builtIn: type)
  }

  private init(builtIn type: any Dialect.Type) { self.type = type }

  /// Named events: `token`, `done`, `error`, `cancelled`, `heartbeat`.
  public static let events = DialectKind(builtIn: EventsDialect.self)
  /// `{"role","delta"}` objects, terminated by `[DONE]`.
  public static let deltas = DialectKind(builtIn: DeltasDialect.self)
  /// Numbered `chunk` events, terminated by `complete`.
  public static let chunks = DialectKind(builtIn: ChunksDialect.self)
  /// Unnamed records with a `type` member, for an EventSource's `onmessage` handler.
  public static let chat = DialectKind(builtIn: ChatDialect.self)
  /// `chat.completion.chunk` objects, as in OpenAI's streaming API.
  public static let openAI = DialectKind(builtIn: OpenAIDialect.self)
  /// The UI Message Stream of the AI SDK.
  public static let ui = DialectKind(builtIn: UIDialect.self)

  /// Returns the head of a stream's response.
  func head(_ metadata: StreamMetadata) -> ResponseHead {
    var head = ResponseHead.eventStream
    type.init(metadata).addFields(to: &head)
    return head
  }

  /// The built-in dialects. A new one requires a file of its own and an entry here.
  static let builtIn: [DialectKind] = [events, deltas, chunks, chat, openAI, ui]

  /// Returns the dialect that the request's `?dialect=` selects.
  ///
  /// - Parameter own: the dialect without `?dialect=`: the route's or the stream's, which can be an embedder's.
  static func selected(by request: Request, own: DialectKind) throws(Failure) -> DialectKind {
    guard let name = request.query("dialect") else { return own }
    let all = builtIn.contains { $0.type.name == own.type.name } ? builtIn : builtIn + [own]
    if let found = all.first(where: { $0.type.name == name }) { return found }
    throw Failure(
      .badRequest, "\"dialect\" must be one of: \(all.map { $0.type.name }.joined(separator: ", ")).")
  }
}

extension ResponseHead {
  /// The header fields that all event streams have in common.
  static var eventStream: ResponseHead {
    var head = ResponseHead()
    head.set("Content-Type", "text/event-stream; charset=utf-8")
    head.set("Cache-Control", "no-cache, no-transform")
    // Needed by proxies other than nginx; nginx removes the field.
    head.set("X-Accel-Buffering", "no")
    return head
  }
}
