/// A feature flag that disables an endpoint, or its streaming, for all requests or for those of one location. It is the
/// name of an environment variable, or of a `fastcgi_param`, with the value `off`. Features are enabled by default.
public struct Feature: Hashable, Sendable {
  /// The name of the variable.
  public let name: String

  /// Creates an embedder's feature flag.
  ///
  /// - Parameter name: the name of the variable, such as `ENABLE_SUMMARIES`.
  public init(_ name: String) { self.name = name }

  static let streamChat = Feature("SLUICE_STREAM_CHAT")
  static let streamReport = Feature("SLUICE_STREAM_REPORT")
  static let deltas = Feature("FEATURE_STREAMING")
  static let aiBlocks = Feature("AI_STREAMING_ENABLED")
  static let chat = Feature("ENABLE_STREAMING")

  /// The features of the built-in endpoints, each with the effect of disabling it. The requirements specify the names.
  static let builtIn: [(feature: Feature, meaning: String)] = [
    (streamChat, "off: /api/chat returns JSON"),
    (streamReport, "off: /api/ai/stream-report is disabled in favour of /api/ai/report"),
    (deltas, "off: /stream/ is disabled in favour of /messages/"),
    (aiBlocks, "off: /api/stream/ai-block/… is disabled"),
    (chat, "off: /chat/stream (use /chat/message) and /chat/onboarding-stream are disabled"),
  ]
}
