/// What turns an endpoint off, for all requests or for those of one location: the name of an environment variable, or of
/// a `fastcgi_param`, whose value is `off`. On unless set.
public struct Feature: Hashable, Sendable {
  /// The variable's name.
  public let name: String

  /// An embedder's own.
  ///
  /// - Parameter name: of the variable: `ENABLE_SUMMARIES`.
  public init(_ name: String) { self.name = name }

  static let streamChat = Feature("SLUICE_STREAM_CHAT")
  static let streamReport = Feature("SLUICE_STREAM_REPORT")
  static let deltas = Feature("FEATURE_STREAMING")
  static let aiBlocks = Feature("AI_STREAMING_ENABLED")
  static let chat = Feature("ENABLE_STREAMING")

  /// Those of the built-in endpoints, and what turning each off means. The names are those of the requirements.
  static let builtIn: [(feature: Feature, meaning: String)] = [
    (streamChat, "off: /api/chat returns JSON"),
    (streamReport, "off: /api/ai/stream-report is disabled in favour of /api/ai/report"),
    (deltas, "off: /stream/ is disabled in favour of /messages/"),
    (aiBlocks, "off: /api/stream/ai-block/… is disabled"),
    (chat, "off: /chat/stream (use /chat/message) and /chat/onboarding-stream are disabled"),
  ]
}
