import FastCGI

extension RouteTable {
  /// The endpoints that every server has: a row each.
  static func builtIn(_ services: Services) -> RouteTable {
    let s = services
    return RouteTable([
      // A conversation, in the words of three documents. A new one is a row, and a `Conversation` for its words.
      .stream(
        "POST", at: "/api/chat", as: EventsDialect.self, feature: .streamChat, whenDisabled: .json, s.converse(.api)),
      .stream(
        "POST", at: "/stream/", as: DeltasDialect.self, feature: .deltas,
        whenDisabled: .refusal(alternate: "/messages/"),
        s.converse(.messages)),
      .json("POST", at: "/messages/", s.converse(.messages)),
      .handle("GET", at: "/messages/", s.messages),
      .stream(
        "GET", at: "/chat/stream", as: ChatDialect.self, feature: .chat,
        whenDisabled: .refusal(alternate: "/chat/message"),
        s.converse(.chat)),
      .json("POST", at: "/chat/message", s.converse(.chat)),
      .stream("GET", at: "/chat/onboarding-stream", as: ChatDialect.self, feature: .chat, s.onboard),

      // One question, one answer.
      .stream(
        "POST", at: "/api/ai/stream-report", as: EventsDialect.self, feature: .streamReport,
        whenDisabled: .refusal(alternate: "/api/ai/report"), s.makeReport),
      .json("POST", at: "/api/ai/report", s.makeReport),
      .stream(
        "GET", "POST", at: "/api/stream/ai-block/{block_type}", as: ChunksDialect.self, feature: .aiBlocks, s.block),

      // What is kept.
      .handle("POST", at: "/api/reports", s.addReport),
      .handle("GET", at: "/api/reports", s.reports),
      .handle("GET", at: "/api/reports/{id}", s.report),
      .handle("GET", at: "/api/sessions", s.sessions),
      .handle("GET", at: "/api/sessions/{id}", s.session),
      .handle("DELETE", at: "/api/sessions/{id}", s.deleteSession),

      // OpenAI's API: nothing is kept.
      .stream("POST", at: "/v1/chat/completions", as: OpenAIDialect.self, supportsIdempotencyKey: false, s.complete),
      .handle("GET", at: "/v1/models", s.models),

      // For clients and operators.
      .handle("DELETE", at: "/api/streams/{id}", isServedWhileDraining: true, s.stopStream),
      .handle("GET", at: "/api/features", isPublic: true, s.features),
      .handle("GET", at: "/healthz", isPublic: true, s.health),
      .handle("GET", at: "/metrics", isPublic: true, s.exposeMetrics),
      .handle("GET", at: "/openapi.yaml", isPublic: true, s.contract),
    ])
  }
}
