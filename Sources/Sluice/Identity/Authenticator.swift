import FastCGI

/// Decides who sent a request, before anything is written.
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
/// A request that a page of another origin made a browser send is refused before it is asked, unless the request has a token
/// or `SLUICE_CORS_ORIGINS` names the origin.
///
/// It is asked for every other request to a route that is not public, in the request's task on its event loop: it must not
/// block. One value serves all loops.
public protocol Authenticator: Sendable {
  /// Returns the user who sent `request`, which has no body here.
  ///
  /// - Throws: ``Failure`` to refuse the request, with ``Failure/Code/unauthorized`` or ``Failure/Code/forbidden`` for
  ///   example. Any other error is `internal`, and only the log has its description.
  nonisolated(nonsending) func authenticate(_ request: Request) async throws -> User
}

/// What the dispatcher asks: an ``Authenticator`` and what the request's location and route say besides.
protocol RequestAuthenticator: Sendable {
  /// - Parameters:
  ///   - trustsRemoteUser: whether the location's REMOTE_USER is the user.
  ///   - callsModel: whether the request, whatever its method is, has a model generate and counts as a message.
  nonisolated(nonsending) func authenticate(
    _ request: Request, trustsRemoteUser: Bool, callsModel: Bool
  ) async throws(Failure) -> User
}

/// An embedder's.
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
    // A cookie is sent by a browser whichever page makes the request; a token is not.
    let hasToken = request.header("Authorization") != nil || request.query("token") != nil
    if !hasToken, request.isCrossSite(allowing: corsOrigins) == true { throw Failure.crossSite }
    do { return try await authenticator.authenticate(request) } catch { throw Failure(cause: error) }
  }
}
