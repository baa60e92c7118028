import EventLoop
import FoundationEssentials
import Glibc
import JSON

/// Verification of JSON Web Tokens (RFC 7519) as RFC 8725 recommends: the key determines the algorithm, a token must
/// expire, and issuer and audience are checked if they are configured.
struct JWTVerifier: Sendable {
  let keys: WatchedFile<JWTKeys>
  /// The required `iss`, or nil to accept any.
  let issuer: String?
  /// The value that `aud` must contain, or nil to accept any.
  let audience: String?

  /// The tolerated difference between the clocks of two machines, in seconds.
  static let leeway: TimeInterval = 30
  static let maximumBytes = 16 * 1024

  /// Returns whether a bearer token looks like a JSON Web Token, which has three parts.
  static func isToken(_ text: String) -> Bool { text.utf8.count { $0 == UInt8(ascii: ".") } == 2 }

  /// Returns the user (`sub`), or nil if the token is not valid. Reads changed keys on a thread of `pool`.
  ///
  /// - Throws: ``SystemError`` when the keys cannot be read, or the file contains none.
  func user(of token: String, on pool: BlockingPool) async throws(SystemError) -> User? {
    try user(of: token, keys: try await keys.content(on: pool))
  }

  /// Returns the user (`sub`), or nil if the token is not valid.
  ///
  /// - Throws: ``SystemError`` when there is no key.
  func user(of token: String, keys content: JWTKeys, now: Date = Date()) throws(SystemError) -> User? {
    guard token.utf8.count <= Self.maximumBytes, let header = Self.header(of: token),
      let name = header["alg"]?.string, let algorithm = JWTKeys.Algorithm(rawValue: name),
      // `crit` lists extensions that must be understood; none is supported (RFC 7515, 4.1.11).
      header["crit"] == nil
    else { return nil }
    // A file without keys is being written or was emptied; this is a server error, not the client's.
    guard !content.keys.isEmpty else { throw SystemError("find a key in \(keys.path)", code: EINVAL) }
    let all = content.keys
    let id = header["kid"]?.string
    // The id of a key must match the token's `kid`. A key without an id, such as a bare secret, matches any `kid`, and
    // a token without a `kid` matches every key of its algorithm.
    for key in all where key.algorithm == algorithm && (id == nil || key.id == nil || key.id == id) {
      guard let payload = key.payload(of: token) else { continue }
      guard let claims = try? JSON(parsing: payload), isValid(claims, at: now) else { return nil }
      return claims["sub"]?.string.flatMap(User.init)
    }
    return nil
  }

  private func isValid(_ claims: JSON, at now: Date) -> Bool {
    let seconds = now.timeIntervalSince1970
    guard let end = claims["exp"]?.number, seconds < end + Self.leeway else { return false }
    if let start = claims["nbf"] {
      guard let start = start.number, seconds >= start - Self.leeway else { return false }
    }
    if let issuer, claims["iss"]?.string != issuer { return false }
    guard let audience else { return true }
    switch claims["aud"] {
    case .string(let one)?: return one == audience
    case .array(let several)?: return several.contains(.string(audience))
    default: return false
    }
  }

  private static func header(of token: String) -> JSON? {
    let part = token.prefix { $0 != "." }.utf8.map { byte in
      switch byte {
      case UInt8(ascii: "-"): UInt8(ascii: "+")
      case UInt8(ascii: "_"): UInt8(ascii: "/")
      default: byte
      }
    }
    let padding = [UInt8](repeating: UInt8(ascii: "="), count: (4 - part.count % 4) % 4)
    guard let data = Data(base64Encoded: Data(part + padding)) else { return nil }
    return try? JSON(parsing: Array(data))
  }
}
