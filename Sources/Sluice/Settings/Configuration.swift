/// All that an admin can set. The defaults are the documented ones.
struct Configuration: Sendable {

  // What answers.
  /// The name of a kind of generator.
  var generator: String?
  /// By the type that holds them.
  var generatorSettings: [ObjectIdentifier: any GeneratorSettings] = [:]
  var model: String?
  var systemPromptFile: String?
  var maximumTokens: Int?

  // Who may ask.
  var tokensFile: String?
  var jwtKeysFile: String?
  var jwtIssuer: String?
  var jwtAudience: String?
  var trustsRemoteUser = false
  var isAuthenticationDisabled = false

  // Feature flags.
  var disabledFeatures: Set<Feature> = []

  // Who else may call, and what models are told.
  var corsOrigins: [String] = []
  var prompts: String?
  var redactFile: String?

  // Time.
  var idleTimeout: Duration = .seconds(30)
  var firstTokenTimeout: Duration = .seconds(60)
  var streamTimeout: Duration = .seconds(600)
  var heartbeat: Duration = .seconds(15)
  var writeTimeout: Duration = .seconds(60)
  var drainTimeout: Duration = .seconds(120)

  // Number; 0 means no limit.
  var streamsPerUser = 10
  var messagesPerHour = 100
  var maximumStreams = 10_000

  // Size.
  var maximumBodyBytes = 1 << 20
  var maximumMessageBytes = 64 << 10
  var maximumResponseBytes = 4 << 20
  var historyTurns = 50

  // Place.
  var state: String
  var listen: ListenAddress?
  var loops = 1
  var logLevel = Log.Level.info

  func isEnabled(_ feature: Feature) -> Bool { !disabledFeatures.contains(feature) }

  /// Defaults, with the store in `state`.
  init(state: String) { self.state = state }
}

/// Where to listen for FastCGI connections.
enum ListenAddress: Sendable, Equatable {
  /// A socket in the file system.
  case unix(path: String)
  /// An address of this machine; the port 0 takes a free one.
  case tcp(host: String, port: UInt16)

  init(parsing text: String) throws(SettingError) {
    if text.hasPrefix("unix:") {
      let path = String(text.dropFirst(5))
      // sockaddr_un has 108 bytes with the end (unix(7)).
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
