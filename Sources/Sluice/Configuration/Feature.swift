/// What an admin can turn off, for all or for one location. The names are those of the requirements.
public enum Feature: String, Sendable, CaseIterable {
  case streamChat = "SLUICE_STREAM_CHAT"
  case streamReport = "SLUICE_STREAM_REPORT"
  case deltas = "FEATURE_STREAMING"
  case aiBlocks = "AI_STREAMING_ENABLED"
  case chat = "ENABLE_STREAMING"

  /// What turning it off means.
  var meaning: String {
    switch self {
    case .streamChat: "off: /api/chat answers in JSON"
    case .streamReport: "off: /api/ai/stream-report refuses and names /api/ai/report"
    case .deltas: "off: /stream/ refuses and names /messages/"
    case .aiBlocks: "off: /api/stream/ai-block/… refuses"
    case .chat: "off: /chat/stream and /chat/onboarding-stream refuse; the first names /chat/message"
    }
  }
}
