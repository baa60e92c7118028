import FastCGI

/// An authentication method: identifies the user of a request before any of the response is written.
///
///     struct CookieAuthenticator: Authenticator {
///       nonisolated(nonsending) func authenticate(_ request: Request) async throws -> User {
///         guard let session = request.header("Cookie"), let user = User(name(of: session)) else {
///           throw Failure(.unauthorized, "Log in first.")
///         }
///         return user
///       }
///     }
///
/// Before it calls the authenticator, Sluice refuses a request that a browser sent for a page of another origin, unless
/// the request has a token or `SLUICE_CORS_ORIGINS` contains the origin.
///
/// Sluice calls the authenticator for every other request to a route that is not public, in the request's task on its
/// event loop, so it must not block. One value serves all loops.
public protocol Authenticator: Sendable {
  /// Returns the user who sent `request`, whose body is not available here.
  ///
  /// - Throws: ``Failure`` to refuse the request, for example with ``Failure/Code/unauthorized`` or
  ///   ``Failure/Code/forbidden``. Any other error is reported as `internal`; its description appears only in the log.
  nonisolated(nonsending) func authenticate(_ request: Request) async throws -> User
}

/// Authentication as the dispatcher uses it: an ``Authenticator`` with properties of the request's location and route.
protocol RequestAuthenticator: Sendable {
  /// Returns the user who sent `request`.
  ///
  /// - Parameters:
  ///   - trustsRemoteUser: whether REMOTE_USER identifies the user at the request's location.
  ///   - callsModel: whether the request's route calls a model, regardless of the method.
  nonisolated(nonsending) func authenticate(
    _ request: Request, trustsRemoteUser: Bool, callsModel: Bool
  ) async throws(Failure) -> User

  /// Returns a function that tells whether a user's token was revoked after the user was authenticated; nil if no token
  /// can have been revoked since the last call. Blocks.
  func revocations() -> ((User) -> Bool)?

  /// Returns whether a user's token is known to have been revoked since the user was authenticated.
  func isRevoked(_ user: User) -> Bool
}

extension RequestAuthenticator {
  func revocations() -> ((User) -> Bool)? { nil }
  func isRevoked(_ user: User) -> Bool { false }
}

/// The authentication of an embedding program: its ``Authenticator``, behind the check for cross-site requests.
struct CustomAuthenticator: RequestAuthenticator {
  private let authenticator: any Authenticator
  private let corsOrigins: [String]

  init(_ authenticator: any Authenticator, corsOrigins: [String]) {
    self.authenticator = authenticator
    self.corsOrigins = corsOrigins
  }

  nonisolated(nonsending) func authenticate(
    _ request: Request, trustsRemoteUser: Bool, callsModel: Bool
  ) async throws(Failure) -> User {
    // A browser adds cookies, and credentials of other schemes such as Basic, to requests by any page, but no token.
    let hasBearerToken = request.header("Authorization")?.prefix(7).lowercased() == "bearer "
    let hasToken = hasBearerToken || request.keyHeader != nil || request.query("token") != nil
    if !hasToken, request.isCrossSite(allowing: corsOrigins) == true { throw Failure.crossSite }
    do { return try await authenticator.authenticate(request) } catch { throw Failure(cause: error) }
  }
}

extension Request {
  /// The value of `api-key` or `x-api-key`, with which clients of Azure's and Anthropic's APIs send a token.
  var keyHeader: String? { header("api-key") ?? header("x-api-key") }
}
