import FastCGI

extension RouteTable {
  /// Returns the table of built-in endpoints, one row per endpoint.
  static func builtIn(_ services: Services) -> RouteTable {
    let s = services
    return RouteTable([
      // Conversations, with three sets of field names. Another one requires a row and a `ConversationFields` value.
      .stream(
        "POST", at: "/api/chat", as: .events, feature: .streamChat, whenDisabled: .json, s.chat(.api)),
      .stream(
        "POST", at: "/stream/", as: .deltas, feature: .deltas,
        whenDisabled: .refusal(alternate: "/messages/"),
        s.chat(.messages)),
      .json("POST", at: "/messages/", s.chat(.messages)),
      .handle("GET", at: "/messages/", s.listMessages),
      .stream(
        "GET", at: "/chat/stream", as: .chat, feature: .chat,
        whenDisabled: .refusal(alternate: "/chat/message"),
        s.chat(.chat)),
      .json("POST", at: "/chat/message", s.chat(.chat)),
      .stream("GET", at: "/chat/onboarding-stream", as: .chat, feature: .chat, s.streamOnboarding),

      // Single requests without a conversation.
      .stream(
        "POST", at: "/api/ai/stream-report", as: .events, feature: .streamReport,
        whenDisabled: .refusal(alternate: "/api/ai/report"), s.createReport),
      .json("POST", at: "/api/ai/report", s.createReport),
      .stream(
        "GET", "POST", at: "/api/stream/ai-block/{block_type}", as: .chunks, feature: .aiBlocks,
        checkPath: s.checkBlock, s.streamBlock),

      // Stored data.
      .handle("POST", at: "/api/reports", s.saveReport),
      .handle("GET", at: "/api/reports", s.listReports),
      .handle("GET", at: "/api/reports/{id}", s.readReport),
      .handle("GET", at: "/api/sessions", s.listSessions),
      .handle("GET", at: "/api/sessions/{id}", s.readSession),
      .handle("DELETE", at: "/api/sessions/{id}", s.deleteSession),

      // OpenAI's API, which stores nothing.
      .stream("POST", at: "/v1/chat/completions", as: .openAI, supportsIdempotencyKey: false, s.createCompletion),
      Route(["POST"], "/v1/embeddings", callsModel: true, .handle(s.createEmbeddings)),
      .handle("GET", at: "/v1/models", s.listModels),
      .handle("GET", at: "/v1/models/{id}", s.readModel),
      // The owner and the name of many models.
      .handle("GET", at: "/v1/models/{owner}/{id}", s.readModel),

      // For clients and operators.
      .handle("DELETE", at: "/api/streams/{id}", isServedWhileDraining: true, s.stopStream),
      .read("/api/streams/{id}", s.selectStream),
      .read("/api/sessions/{id}/stream", s.selectRunningStream),
      .handle("GET", at: "/api/features", isPublic: true, s.listFeatures),
      Route(["GET"], "/api/doctor", callsModel: true, .handle(s.diagnose)),
      Route(
        ["GET"], "/api/doctor/stream",
        .stream(StreamingEndpoint(dialect: .events, countsAsMessage: false, validate: s.streamWords))),
      .handle("GET", at: "/healthz", isPublic: true, s.readHealth),
      .handle("GET", at: "/metrics", isPublic: true, s.readMetrics),
      .handle("GET", at: "/openapi.yaml", isPublic: true, s.readContract),
    ])
  }
}
