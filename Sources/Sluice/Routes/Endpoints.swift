import FastCGI

extension RouteTable {
  /// The endpoints that every server has: a row each.
  static func builtIn(_ services: Services) -> RouteTable {
    let s = services
    return RouteTable([
      // A conversation, in the words of three documents. A new one is a row, and a `Conversation` for its words.
      .stream(
        "POST", at: "/api/chat", as: EventsDialect.self, feature: .streamChat, whenOff: .whole, s.converse(.api)),
      .stream(
        "POST", at: "/stream/", as: DeltasDialect.self, feature: .deltas, whenOff: .refusal(twin: "/messages/"),
        s.converse(.messages)),
      .whole("POST", at: "/messages/", s.converse(.messages)),
      .answer("GET", at: "/messages/", s.messages),
      .stream(
        "GET", at: "/chat/stream", as: ChatDialect.self, feature: .chat, whenOff: .refusal(twin: "/chat/message"),
        s.converse(.chat)),
      .whole("POST", at: "/chat/message", s.converse(.chat)),
      .stream("GET", at: "/chat/onboarding-stream", as: ChatDialect.self, feature: .chat, s.onboard),

      // One question, one answer.
      .stream(
        "POST", at: "/api/ai/stream-report", as: EventsDialect.self, feature: .streamReport,
        whenOff: .refusal(twin: "/api/ai/report"), s.makeReport),
      .whole("POST", at: "/api/ai/report", s.makeReport),
      .stream(
        "GET", "POST", at: "/api/stream/ai-block/{block_type}", as: ChunksDialect.self, feature: .aiBlocks, s.block),

      // What is kept.
      .answer("POST", at: "/api/reports", s.addReport),
      .answer("GET", at: "/api/reports", s.reports),
      .answer("GET", at: "/api/reports/{id}", s.report),
      .answer("GET", at: "/api/sessions", s.sessions),
      .answer("GET", at: "/api/sessions/{id}", s.session),
      .answer("DELETE", at: "/api/sessions/{id}", s.deleteSession),

      // OpenAI's API: nothing is kept.
      .stream("POST", at: "/v1/chat/completions", as: OpenAIDialect.self, keepsAnswers: false, s.complete),
      .answer("GET", at: "/v1/models", s.models),

      // For clients and operators.
      .answer("DELETE", at: "/api/streams/{id}", isServedWhileDraining: true, s.stopStream),
      .answer("GET", at: "/api/features", isOpen: true, s.features),
      .answer("GET", at: "/healthz", isOpen: true, s.health),
      .answer("GET", at: "/metrics", isOpen: true, s.exposeMetrics),
      .answer("GET", at: "/openapi.yaml", isOpen: true, s.contract),
    ])
  }
}
