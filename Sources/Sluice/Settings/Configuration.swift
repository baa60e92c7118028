/// The values of all settings. The defaults are the documented ones.
struct Configuration: Sendable {

  // Generation.
  /// The name of the selected kind of generator.
  var generator: String?
  /// The settings of each kind of generator, by their type.
  var generatorSettings: [ObjectIdentifier: any GeneratorSettings] = [:]
  var model: String?
  var systemPromptFile: String?
  var maximumTokens: Int?

  // Authentication.
  var tokensFile: String?
  var jwtKeysFile: String?
  var jwtIssuer: String?
  var jwtAudience: String?
  var trustsRemoteUser = false
  var isAuthenticationDisabled = false

  // Feature flags.
  var disabledFeatures: Set<Feature> = []
  /// Nil: both transports if there is a socket for WebSockets.
  var streamingBackend: StreamingBackend?

  // CORS, prompts and redaction.
  var corsOrigins: [String] = []
  var prompts: String?
  var redactFile: String?

  // Timeouts and intervals.
  var idleTimeout: Duration = .seconds(30)
  var firstTokenTimeout: Duration = .seconds(60)
  var streamTimeout: Duration = .seconds(600)
  var heartbeat: Duration = .seconds(15)
  var writeTimeout: Duration = .seconds(60)
  var drainTimeout: Duration = .seconds(120)
  /// The time for which a generation continues without a reader, and can be read after its end; 0 disables both.
  var resume: Duration = .zero

  // Counts; 0 means unlimited.
  var streamsPerUser = 10
  var messagesPerHour = 100
  var maximumStreams = 10_000

  // Sizes in bytes, except the history, which is in turns.
  var maximumBodyBytes = 1 << 20
  var maximumMessageBytes = 64 << 10
  var maximumResponseBytes = 4 << 20
  var historyTurns = 50
  /// Whether the model's reasoning is stored with its response.
  var storesReasoning = false

  // Store, socket, event loops and log.
  var state: String
  var listen: ListenAddress?
  var webSocketListen: ListenAddress?
  var loops = 1
  /// Whether a busy loop sleeps to handle several events per wake-up.
  var coalescesEvents = true
  var logLevel = Log.Level.info

  func isEnabled(_ feature: Feature) -> Bool { !disabledFeatures.contains(feature) }

  /// Creates a configuration with the defaults and the store in `state`.
  init(state: String) { self.state = state }
}

/// An address to listen on.
enum ListenAddress: Sendable, Equatable, CustomStringConvertible {
  /// A socket in the file system.
  case unix(path: String)
  /// An address of this machine; port 0 selects a free port.
  case tcp(host: String, port: UInt16)

  var description: String {
    switch self {
    case .unix(let path): "unix:\(path)"
    case .tcp(let host, let port): host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
    }
  }

  init(parsing text: String) throws(SettingError) {
    if text.hasPrefix("unix:") {
      let path = String(text.dropFirst(5))
      // sun_path has 108 bytes, including the terminating NUL (unix(7)).
      guard !path.isEmpty, path.utf8.count <= 107 else {
        throw SettingError(reason: "must be unix:PATH with a path of 1 to 107 bytes")
      }
      self = .unix(path: path)
      return
    }
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]) else {
      throw SettingError(reason: "must be unix:PATH or HOST:PORT")
    }
    var host = text[..<colon]
    if host.hasPrefix("["), host.hasSuffix("]") { host = host.dropFirst().dropLast() }
    guard !host.isEmpty else { throw SettingError(reason: "must be unix:PATH or HOST:PORT") }
    self = .tcp(host: String(host), port: port)
  }
}
