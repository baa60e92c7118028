import EventLoop
import FastCGI

/// Authentication by the configured methods: tokens, JSON Web Tokens, and the web server's REMOTE_USER.
struct BuiltInAuthenticator: RequestAuthenticator {
  private let tokens: WatchedFile<TokensFile>?
  private let jwt: JWTVerifier?
  /// The numbers of the tokens file's reads that ``revocations()`` has seen, and that it has checked. A change counts when
  /// two calls have seen it, because an editor can write a file in parts.
  private let revocationState = Locked((seen: 0, checked: 0))
  private let isAuthenticationDisabled: Bool
  private let corsOrigins: [String]
  private let log: Log
  /// The pool on which changed files are read.
  private let pool: BlockingPool

  init(_ configuration: Configuration, log: Log, pool: BlockingPool) {
    self.pool = pool
    tokens = configuration.tokensFile.map { path in
      WatchedFile(path) {
        let file = TokensFile(parsing: String(decoding: $0, as: UTF8.self))
        for issue in file.issues {
          log.error("invalid entry in the tokens file", ["error": .string(issue.description)])
        }
        return file
      }
    }
    jwt = configuration.jwtKeysFile.map { path in
      let keys = WatchedFile(path) {
        let keys = JWTKeys(parsing: $0)
        for issue in keys.issues { log.error("invalid JWT keys file", ["error": .string(issue)]) }
        for warning in keys.warnings { log.warning("JWT key ignored", ["reason": .string(warning)]) }
        return keys
      }
      return JWTVerifier(keys: keys, issuer: configuration.jwtIssuer, audience: configuration.jwtAudience)
    }
    isAuthenticationDisabled = configuration.isAuthenticationDisabled
    corsOrigins = configuration.corsOrigins
    self.log = log
  }

  /// Returns the user from the first of these that the request contains: REMOTE_USER if the location trusts it, the
  /// header `Authorization: Bearer`, the query parameter `token`, the headers of ``Request/keyHeader``.
  ///
  /// - Parameter callsModel: whether the request's route calls a model, regardless of the method.
  nonisolated(nonsending) func authenticate(
    _ request: Request, trustsRemoteUser: Bool, callsModel: Bool
  ) async throws(Failure) -> User {
    if trustsRemoteUser, let name = request.parameters["REMOTE_USER"], !name.isEmpty {
      try refuseCrossSiteRequests(request, callsModel: callsModel)
      if let user = User(name) { return user }
      throw Failure(.forbidden, "The user name supplied by the web server is too long or is not valid UTF-8.")
    }
    if let token = bearerToken(request) ?? request.query("token") ?? request.keyHeader {
      if let user = try await user(of: token) { return user }
      throw Failure(.unauthorized, "The token is not valid.")
    }
    if isAuthenticationDisabled, let user = User("anonymous") { return user }
    throw Failure(.unauthorized, "Authentication is required: send the header \"Authorization: Bearer TOKEN\".")
  }

  /// Throws if a page of another origin made the request. A browser adds the web server's credentials to a request by
  /// any page, so an image on a foreign page could otherwise act as the user. Browsers can be made to omit the page's
  /// origin, and other programs need not send one; such a request is refused if it calls a model and is not a POST.
  private func refuseCrossSiteRequests(_ request: Request, callsModel: Bool) throws(Failure) {
    let isUnknownRefused = callsModel && request.method != "POST"
    guard !(request.isCrossSite(allowing: corsOrigins) ?? isUnknownRefused) else { throw Failure.crossSite }
  }

  func revocations() -> ((User) -> Bool)? {
    // For as long as the file cannot be read, nothing is known.
    guard let tokens, let (file, reads) = try? tokens.numberedContent() else { return nil }
    let isDue = revocationState.withLock { state in
      let isStable = exchange(&state.seen, with: reads) == reads
      return isStable && exchange(&state.checked, with: reads) != reads
    }
    guard isDue, Self.isComplete(file) else { return nil }
    return { user in !file.contains(user) }
  }

  func isRevoked(_ user: User) -> Bool {
    guard user.tokenDigest != nil, let file = tokens?.latest, Self.isComplete(file) else { return false }
    return !file.contains(user)
  }

  /// Whether a tokens file was not just caught while an editor writes it.
  private static func isComplete(_ file: TokensFile) -> Bool { !file.entries.isEmpty && file.issues.isEmpty }

  private func bearerToken(_ request: Request) -> String? {
    guard let header = request.header("Authorization") else { return nil }
    let parts = header.split(separator: " ", maxSplits: 1)
    guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
    return String(parts[1].trimmed)
  }

  private func user(of token: String) async throws(Failure) -> User? {
    if isAuthenticationDisabled { return User("anonymous") }
    do {
      if let jwt, JWTVerifier.isToken(token) { return try await jwt.user(of: token, on: pool) }
      return try await tokens?.content(on: pool).user(of: token)
    } catch {
      // Without the file no token can be verified; this is a server error, not the client's.
      log.error("cannot verify tokens", ["error": .string("\(error)")])
      throw Failure(.internalError, "The token could not be verified; try again later.")
    }
  }
}
