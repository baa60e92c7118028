/// One of the dialects that streams can have: a built-in one, or an embedder's.
public struct DialectKind: Sendable {
  let type: any Dialect.Type

  /// The dialect of an embedder's own type, for routes of its own. Its name must be of `[a-z0-9-]` and not a built-in one's.
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
  /// `{"role","delta"}` objects, ended by `[DONE]`.
  public static let deltas = DialectKind(builtIn: DeltasDialect.self)
  /// Numbered `chunk` events, ended by `complete`.
  public static let chunks = DialectKind(builtIn: ChunksDialect.self)
  /// Unnamed records with a `type`, for an EventSource's `onmessage`.
  public static let chat = DialectKind(builtIn: ChatDialect.self)
  /// `chat.completion.chunk` objects, as OpenAI's API streams them.
  public static let openAI = DialectKind(builtIn: OpenAIDialect.self)
  /// The UI Message Stream of the AI SDK.
  public static let ui = DialectKind(builtIn: UIDialect.self)

  /// The registry of built-in dialects: a new one is a file and a line here.
  static let builtIn: [DialectKind] = [events, deltas, chunks, chat, openAI, ui]

  /// Finds the dialect that `?dialect=` selects.
  ///
  /// - Parameter own: the route's, which may be an embedder's.
  static func named(_ name: String, own: DialectKind) throws(Failure) -> DialectKind {
    let all = builtIn.contains { $0.type.name == own.type.name } ? builtIn : builtIn + [own]
    if let found = all.first(where: { $0.type.name == name }) { return found }
    throw Failure(
      .badRequest, "\"dialect\" must be one of: \(all.map { $0.type.name }.joined(separator: ", ")).")
  }
}
