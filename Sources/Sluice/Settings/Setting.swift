/// One configuration variable: a row of the table that determines how the environment and the web server's
/// `fastcgi_param` are read, and what `sluice --check` and `sluice --help` print.
struct Setting: Sendable {
  let name: String
  let meaning: String
  /// Whether the web server can override the environment's value for one location.
  let isPerLocation: Bool
  let set: @Sendable (inout Configuration, String) throws(SettingError) -> Void

  /// The settings that do not belong to one kind of generator.
  static let general: [Setting] = sluice + features

  private static let sluice: [Setting] = [
    perLocation("SLUICE_MODEL", "model name") { (c, text) throws(SettingError) in c.model = text },
    perLocation("SLUICE_SYSTEM_PROMPT_FILE", "system prompt file") {
      (c, text) throws(SettingError) in c.systemPromptFile = text
    },
    perLocation("SLUICE_MAX_TOKENS", "maximum output tokens") {
      (c, text) throws(SettingError) in
      let count = try SettingValue.count(text)
      guard count > 0 else { throw SettingError(reason: "must be greater than 0") }
      c.maximumTokens = count
    },
    global("SLUICE_TOKENS_FILE", "file of user:sha256hex[:expiry] lines; see \"sluice token\"") {
      (c, text) throws(SettingError) in c.tokensFile = text
    },
    global("SLUICE_JWT_KEYS_FILE", "JWK set or secret that verifies JSON Web Tokens; sub is the user") {
      (c, text) throws(SettingError) in c.jwtKeysFile = text
    },
    global("SLUICE_JWT_ISSUER", "required iss of JSON Web Tokens") {
      (c, text) throws(SettingError) in c.jwtIssuer = text
    },
    global("SLUICE_JWT_AUDIENCE", "required aud of JSON Web Tokens") {
      (c, text) throws(SettingError) in c.jwtAudience = text
    },
    perLocation("SLUICE_TRUST_REMOTE_USER", "on: the user is the web server's REMOTE_USER (default off)") {
      (c, text) throws(SettingError) in c.trustsRemoteUser = try SettingValue.flag(text)
    },
    global("SLUICE_AUTH", "none: disable authentication; all requests run as \"anonymous\"") {
      (c, text) throws(SettingError) in
      guard text == "none" else { throw SettingError(reason: "must be none or unset") }
      c.isAuthenticationDisabled = true
    },
    global("SLUICE_PROMPTS", "directory of prompts that replace or extend the built-in ones") {
      (c, text) throws(SettingError) in c.prompts = text
    },
    perLocation("SLUICE_REDACT_FILE", "file of patterns to remove from responses, one per line") {
      (c, text) throws(SettingError) in c.redactFile = text
    },
    global("SLUICE_CORS_ORIGINS", "origins that are allowed to send requests, separated by spaces") {
      (c, text) throws(SettingError) in
      let origins = text.split { $0 == " " || $0 == "," }
      guard origins.allSatisfy(SettingValue.isOrigin) else {
        throw SettingError(reason: "must be origins such as https://app.example.com, separated by spaces")
      }
      c.corsOrigins = origins.map(String.init)
    },
    perLocation("SLUICE_IDLE_TIMEOUT", "maximum time between two deltas (default 30s)") {
      (c, text) throws(SettingError) in c.idleTimeout = try SettingValue.positiveDuration(text)
    },
    perLocation("SLUICE_FIRST_TOKEN_TIMEOUT", "maximum time to the first delta (default 60s)") {
      (c, text) throws(SettingError) in c.firstTokenTimeout = try SettingValue.positiveDuration(text)
    },
    perLocation("SLUICE_STREAM_TIMEOUT", "maximum duration of a stream (default 600s)") {
      (c, text) throws(SettingError) in c.streamTimeout = try SettingValue.positiveDuration(text)
    },
    perLocation("SLUICE_HEARTBEAT", "heartbeat interval; 0 = off (default 15s)") {
      (c, text) throws(SettingError) in c.heartbeat = try SettingValue.duration(text)
    },
    perLocation(
      "SLUICE_RESUME", "time for which a stream waits for a lost client, and can be read again; 0 = off (default)"
    ) {
      (c, text) throws(SettingError) in c.resume = try SettingValue.duration(text)
    },
    perLocation("SLUICE_STREAMS_PER_USER", "maximum concurrent streams per user; 0 = unlimited (default 10)") {
      (c, text) throws(SettingError) in c.streamsPerUser = try SettingValue.count(text)
    },
    perLocation("SLUICE_MESSAGES_PER_HOUR", "maximum messages per hour per user; 0 = unlimited (default 100)") {
      (c, text) throws(SettingError) in c.messagesPerHour = try SettingValue.count(text)
    },
    global("SLUICE_MAX_STREAMS", "maximum concurrent streams; 0 = unlimited (default 10000)") {
      (c, text) throws(SettingError) in c.maximumStreams = try SettingValue.count(text)
    },
    global("SLUICE_MAX_BODY", "maximum size of a request body (default 1M)") {
      (c, text) throws(SettingError) in c.maximumBodyBytes = try SettingValue.size(text)
    },
    global("SLUICE_MAX_MESSAGE", "maximum size of a message (default 64K)") {
      (c, text) throws(SettingError) in c.maximumMessageBytes = try SettingValue.size(text)
    },
    global("SLUICE_MAX_ANSWER", "maximum size of a response (default 4M)") {
      (c, text) throws(SettingError) in c.maximumResponseBytes = try SettingValue.size(text)
    },
    perLocation("SLUICE_HISTORY", "earlier turns sent with a prompt (default 50)") {
      (c, text) throws(SettingError) in c.historyTurns = try SettingValue.count(text)
    },
    perLocation("SLUICE_STORE_REASONING", "on: store the model's reasoning with its response (default off)") {
      (c, text) throws(SettingError) in c.storesReasoning = try SettingValue.flag(text)
    },
    global("SLUICE_WRITE_TIMEOUT", "maximum time for which the client reads nothing (default 60s)") {
      (c, text) throws(SettingError) in c.writeTimeout = try SettingValue.positiveDuration(text)
    },
    global("SLUICE_DRAIN_TIMEOUT", "maximum time for running streams to finish at shutdown (default 120s)") {
      (c, text) throws(SettingError) in c.drainTimeout = try SettingValue.duration(text)
    },
    global("SLUICE_STATE", "directory of the store (default $STATE_DIRECTORY, else ./state)") {
      (c, text) throws(SettingError) in c.state = text
    },
    global("SLUICE_LISTEN", "unix:PATH or HOST:PORT (default: systemd's socket, else descriptor 0)") {
      (c, text) throws(SettingError) in c.listen = try ListenAddress(parsing: text)
    },
    global("SLUICE_WEBSOCKET_LISTEN", "unix:PATH or HOST:PORT for WebSockets (default: systemd's socket, else none)") {
      (c, text) throws(SettingError) in c.webSocketListen = try ListenAddress(parsing: text)
    },
    global("SLUICE_LOOPS", "event loops, one thread each (default 1)") { (c, text) throws(SettingError) in
      c.loops = try SettingValue.count(text)
      guard (1...64).contains(c.loops) else { throw SettingError(reason: "must be an integer from 1 to 64") }
    },
    global(Environment.fileVariable, "file of NAME=value lines with settings, read again at SIGHUP") { (_, _) in },
    global("SLUICE_COALESCE", "whether a busy loop waits 0.3 ms to handle several events at once (default on)") {
      (c, text) throws(SettingError) in c.coalescesEvents = try SettingValue.flag(text)
    },
    global("SLUICE_LOG", "log level: error, warning, info or debug (default info)") {
      (c, text) throws(SettingError) in c.logLevel = try SettingValue.choice(text)
    },
  ]

  private static let features: [Setting] =
    Feature.builtIn.map { (feature, meaning) in
      perLocation(feature.name, meaning) { (c, text) throws(SettingError) in
        if try SettingValue.flag(text) {
          c.disabledFeatures.remove(feature)
        } else {
          c.disabledFeatures.insert(feature)
        }
      }
    } + [
      perLocation("STREAMING_BACKEND", "sse, websocket or both (default both with a WebSocket socket, else sse)") {
        (c, text) throws(SettingError) in c.streamingBackend = try SettingValue.choice(text)
      }
    ]

  typealias Assignment = @Sendable (inout Configuration, String) throws(SettingError) -> Void

  static func global(_ name: String, _ meaning: String, _ set: @escaping Assignment) -> Setting {
    Setting(name: name, meaning: meaning, isPerLocation: false, set: set)
  }

  static func perLocation(_ name: String, _ meaning: String, _ set: @escaping Assignment) -> Setting {
    Setting(name: name, meaning: meaning, isPerLocation: true, set: set)
  }
}

extension SettingValue {
  /// Returns a duration greater than 0.
  static func positiveDuration(_ text: String) throws(SettingError) -> Duration {
    let duration = try duration(text)
    guard duration > .zero else { throw SettingError(reason: "must be greater than 0") }
    return duration
  }
}
