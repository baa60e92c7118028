import FastCGI

/// Finds out who asks, before anything is answered.
struct Authenticator: Sendable {
  private let tokens: WatchedFile<TokensFile>?
  private let jwt: JWTVerifier?
  private let asksNobody: Bool
  private let corsOrigins: [String]
  private let log: Log

  init(_ configuration: Configuration, log: Log) {
    tokens = configuration.tokensFile.map { path in
      WatchedFile(path) {
        let file = TokensFile(parsing: String(decoding: $0, as: UTF8.self))
        for mistake in file.mistakes {
          log.error("the tokens file has a mistake", ["error": .string(mistake.description)])
        }
        return file
      }
    }
    jwt = configuration.jwtKeysFile.map { path in
      let keys = WatchedFile(path) {
        let keys = JWTKeys(parsing: $0)
        for mistake in keys.mistakes { log.error("the file of JWT keys has a mistake", ["error": .string(mistake)]) }
        for warning in keys.warnings { log.warning("a JWT key is not used", ["reason": .string(warning)]) }
        return keys
      }
      return JWTVerifier(keys: keys, issuer: configuration.jwtIssuer, audience: configuration.jwtAudience)
    }
    asksNobody = configuration.asksNobody
    corsOrigins = configuration.corsOrigins
    self.log = log
  }

  /// The user, by the first of these that the request has: REMOTE_USER if the web server is trusted with it, the
  /// header `Authorization: Bearer`, the query's `token`.
  func authenticate(_ request: Request, trustsRemoteUser: Bool) throws(Failure) -> User {
    if trustsRemoteUser, let name = request.parameters["REMOTE_USER"], !name.isEmpty {
      try refuseForeignPages(request)
      if let user = User(name) { return user }
      throw Failure(.forbidden, "The user's name is too long, or not UTF-8: no folder can be named after it.")
    }
    if let token = bearerToken(request) ?? request.query("token") {
      if let user = try user(of: token) { return user }
      throw Failure(.unauthorized, "The token is not valid.")
    }
    if asksNobody, let user = User("anonymous") { return user }
    throw Failure(.unauthorized, "A token is needed: send the header \"Authorization: Bearer TOKEN\".")
  }

  /// What the web server has authenticated the browser sends by itself, whichever page asks: an image on a foreign page
  /// must not speak in the user's name (W3C Fetch Metadata, 2.4).
  private func refuseForeignPages(_ request: Request) throws(Failure) {
    guard ["cross-site", "same-site"].contains(request.header("Sec-Fetch-Site")) else { return }
    if let origin = request.header("Origin"), corsOrigins.contains(origin) { return }
    throw Failure(.forbidden, "A page of another origin may not ask in your name.")
  }

  private func bearerToken(_ request: Request) -> String? {
    guard let header = request.header("Authorization") else { return nil }
    let parts = header.split(separator: " ", maxSplits: 1)
    guard parts.count == 2, parts[0].lowercased() == "bearer" else { return nil }
    return String(parts[1].trimmed)
  }

  private func user(of token: String) throws(Failure) -> User? {
    if asksNobody { return User("anonymous") }
    do {
      if let jwt, JWTVerifier.isToken(token) { return try jwt.user(of: token) }
      return try tokens?.content().user(of: token)
    } catch {
      // Without the file nobody can be let in; that is not the client's fault.
      log.error("tokens cannot be checked", ["error": .string("\(error)")])
      throw Failure(.internalError, "Tokens cannot be checked at the moment.")
    }
  }
}
