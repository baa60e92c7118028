import EventLoop
import FoundationEssentials
import Glibc
import JSON

/// Finds out whom a JSON Web Token belongs to (RFC 7519), as RFC 8725 advises: the algorithm is the key's, not the
/// token's; a token has an end; who issued it and for whom is checked where it is configured.
struct JWTVerifier: Sendable {
  let keys: WatchedFile<JWTKeys>
  /// `iss`, where only one is right.
  let issuer: String?
  /// `aud`, where it must be among those that the token is for.
  let audience: String?

  /// How far the clocks of two machines may be apart.
  static let leeway: TimeInterval = 30
  static let maximumBytes = 16 * 1024

  /// Whether a bearer token looks like one: three parts.
  static func isToken(_ text: String) -> Bool { text.utf8.count { $0 == UInt8(ascii: ".") } == 2 }

  /// The user (`sub`), or nil when the token is not valid. Keys that have changed are read on a thread of `pool`.
  ///
  /// - Throws: when the keys cannot be read.
  func user(of token: String, on pool: BlockingPool) async throws(SystemError) -> User? {
    try user(of: token, keys: try await keys.content(on: pool))
  }

  /// The user (`sub`), or nil when the token is not valid.
  ///
  /// - Throws: when there is no key.
  func user(of token: String, keys content: JWTKeys, now: Date = Date()) throws(SystemError) -> User? {
    guard token.utf8.count <= Self.maximumBytes, let header = Self.header(of: token),
      let name = header["alg"]?.string, let algorithm = JWTKeys.Algorithm(rawValue: name),
      // What must be understood, and is not (RFC 7515, 4.1.11).
      header["crit"] == nil
    else { return nil }
    // Keys that are being written, or were emptied: that is not the client's fault.
    guard !content.keys.isEmpty else { throw SystemError("find a key in \(keys.path)", code: EINVAL) }
    let all = content.keys
    let id = header["kid"]?.string
    // A key that is named must be there, unless the one that is there has no name: a bare secret never has. Without a
    // name each key of that algorithm may be meant.
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
