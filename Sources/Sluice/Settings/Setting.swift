/// One variable that an admin can set: a row of the table that the environment, the web server's `fastcgi_param`,
/// `sluice --check` and `sluice --help` all go by.
struct Setting: Sendable {
  let name: String
  let meaning: String
  /// Whether the web server may set it for one location, where it wins over the environment.
  let isPerLocation: Bool
  let set: @Sendable (inout Configuration, String) throws(SettingError) -> Void

  /// Those that no kind of generator has for itself.
  static let general: [Setting] = sluice + features

  private static let sluice: [Setting] = [
    perLocation("SLUICE_MODEL", "the model to ask") { (c, text) throws(SettingError) in c.model = text },
    perLocation("SLUICE_SYSTEM_PROMPT_FILE", "file with the system prompt") {
      (c, text) throws(SettingError) in c.systemPromptFile = text
    },
    perLocation("SLUICE_MAX_TOKENS", "the most tokens of an answer") {
      (c, text) throws(SettingError) in c.maximumTokens = try SettingValue.count(text)
    },
    global("SLUICE_TOKENS_FILE", "file of user:sha256hex[:expiry] lines; \"sluice token USER\" adds one") {
      (c, text) throws(SettingError) in c.tokensFile = text
    },
    global("SLUICE_JWT_KEYS_FILE", "JWK set, or a secret, that signs JSON Web Tokens; sub is the user") {
      (c, text) throws(SettingError) in c.jwtKeysFile = text
    },
    global("SLUICE_JWT_ISSUER", "the iss that a JSON Web Token must have") {
      (c, text) throws(SettingError) in c.jwtIssuer = text
    },
    global("SLUICE_JWT_AUDIENCE", "the aud that a JSON Web Token must be for") {
      (c, text) throws(SettingError) in c.jwtAudience = text
    },
    perLocation("SLUICE_TRUST_REMOTE_USER", "on: REMOTE_USER, which the web server sets, is the user") {
      (c, text) throws(SettingError) in c.trustsRemoteUser = try SettingValue.flag(text)
    },
    global("SLUICE_AUTH", "none: everybody is let in, as the user anonymous") { (c, text) throws(SettingError) in
      guard text == "none" else { throw SettingError(reason: "must be none, or not be set") }
      c.isAuthenticationDisabled = true
    },
    global("SLUICE_PROMPTS", "directory of chat.txt, report.txt, onboarding.txt, blocks/NAME.txt") {
      (c, text) throws(SettingError) in c.prompts = text
    },
    perLocation("SLUICE_REDACT_FILE", "file of patterns to take out of answers: a name, a regex, a replacement a line")
    {
      (c, text) throws(SettingError) in c.redactFile = text
    },
    global("SLUICE_CORS_ORIGINS", "origins whose pages may call, apart by spaces, as https://app.example.com") {
      (c, text) throws(SettingError) in
      let origins = text.split { $0 == " " || $0 == "," }
      guard origins.allSatisfy(SettingValue.isOrigin) else {
        throw SettingError(reason: "must be origins as browsers send them, as https://app.example.com, apart by spaces")
      }
      c.corsOrigins = origins.map(String.init)
    },
    perLocation("SLUICE_IDLE_TIMEOUT", "the longest pause between two pieces of an answer; default 30s") {
      (c, text) throws(SettingError) in c.idleTimeout = try SettingValue.positiveDuration(text)
    },
    perLocation("SLUICE_FIRST_TOKEN_TIMEOUT", "the longest wait for the first piece; default 60s") {
      (c, text) throws(SettingError) in c.firstTokenTimeout = try SettingValue.positiveDuration(text)
    },
    perLocation("SLUICE_STREAM_TIMEOUT", "the longest a stream may take in all; default 600s") {
      (c, text) throws(SettingError) in c.streamTimeout = try SettingValue.positiveDuration(text)
    },
    perLocation("SLUICE_HEARTBEAT", "how often a silent stream shows that it lives; 0 never; default 15s") {
      (c, text) throws(SettingError) in c.heartbeat = try SettingValue.duration(text)
    },
    perLocation("SLUICE_STREAMS_PER_USER", "how many streams of a user may run at once; 0: any number; default 10") {
      (c, text) throws(SettingError) in c.streamsPerUser = try SettingValue.count(text)
    },
    perLocation("SLUICE_MESSAGES_PER_HOUR", "how many messages a user may send in an hour; 0: any; default 100") {
      (c, text) throws(SettingError) in c.messagesPerHour = try SettingValue.count(text)
    },
    global("SLUICE_MAX_STREAMS", "how many streams may run at once in all; 0: any number; default 10000") {
      (c, text) throws(SettingError) in c.maximumStreams = try SettingValue.count(text)
    },
    global("SLUICE_MAX_BODY", "the largest request body; default 1M") {
      (c, text) throws(SettingError) in c.maximumBodyBytes = try SettingValue.size(text)
    },
    global("SLUICE_MAX_MESSAGE", "the longest message; default 64K") {
      (c, text) throws(SettingError) in c.maximumMessageBytes = try SettingValue.size(text)
    },
    global("SLUICE_MAX_ANSWER", "the longest answer; default 4M") {
      (c, text) throws(SettingError) in c.maximumResponseBytes = try SettingValue.size(text)
    },
    perLocation("SLUICE_HISTORY", "how many earlier turns go with a question; default 50") {
      (c, text) throws(SettingError) in c.historyTurns = try SettingValue.count(text)
    },
    global("SLUICE_WRITE_TIMEOUT", "how long a client may take nothing; default 60s") {
      (c, text) throws(SettingError) in c.writeTimeout = try SettingValue.positiveDuration(text)
    },
    global("SLUICE_DRAIN_TIMEOUT", "how long running streams have at shutdown; default 120s") {
      (c, text) throws(SettingError) in c.drainTimeout = try SettingValue.duration(text)
    },
    global("SLUICE_STATE", "directory of the store; default $STATE_DIRECTORY, else ./state") {
      (c, text) throws(SettingError) in c.state = text
    },
    global("SLUICE_LISTEN", "unix:PATH or HOST:PORT; default: descriptor 0 or systemd's socket") {
      (c, text) throws(SettingError) in c.listen = try ListenAddress(parsing: text)
    },
    global("SLUICE_LOOPS", "event loops, each a thread; default 1") { (c, text) throws(SettingError) in
      c.loops = try SettingValue.count(text)
      guard (1...64).contains(c.loops) else { throw SettingError(reason: "must be a number from 1 to 64") }
    },
    global("SLUICE_LOG", "error, warning, info or debug; default info") {
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
      perLocation("STREAMING_BACKEND", "sse, which is the only one there is") { (c, text) throws(SettingError) in
        guard text == "sse" else {
          throw SettingError(reason: "must be sse: there is no other way of streaming yet, WebSocket included")
        }
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
  /// A duration above 0.
  static func positiveDuration(_ text: String) throws(SettingError) -> Duration {
    let duration = try duration(text)
    guard duration > .zero else { throw SettingError(reason: "must be longer than 0") }
    return duration
  }
}
