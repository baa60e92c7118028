import CJOSE
import CLazyLibraries
import EventLoop
import JSON

/// The keys that verify tokens: a JWK set (RFC 7517), a single JWK, or a bare secret for HS256.
struct JWTKeys: Sendable {
  /// The only algorithm that a key can be used with: a token does not choose its algorithm (RFC 8725, 3.1).
  enum Algorithm: String, Sendable {
    case hs256 = "HS256"
    case rs256 = "RS256"
    case es256 = "ES256"
  }

  private(set) var keys: [JWTKey] = []
  private(set) var issues: [String] = []
  /// The reasons why keys of a set were ignored.
  private(set) var warnings: [String] = []

  init(parsing file: [UInt8]) {
    if let reason = unsafe clazy_load_jose() {
      issues = ["libcjose cannot be loaded: \(unsafe String(cString: reason))"]
      return
    }
    // A secret is bytes, not text, so only one trailing line ending is removed.
    let secret = file.last == 0x0A ? file.dropLast(file.dropLast().last == 0x0D ? 2 : 1) : file[...]
    guard file.first(where: { ![0x20, 0x09, 0x0A, 0x0D].contains($0) }) == UInt8(ascii: "{") else {
      addSecret(Array(secret))
      return
    }
    guard let json = try? JSON(parsing: file) else {
      issues.append("the file is not JSON")
      return
    }
    guard case .array(let values)? = json["keys"] else {
      add(json, "the key")
      return
    }
    for (index, value) in values.enumerated() { add(value, "key \(index + 1)") }
    // A set can contain keys for other uses, which are ignored (RFC 7517, 5) as long as there is a usable one.
    warnings = keys.isEmpty ? [] : issues
    issues = keys.isEmpty ? ["the file contains no usable key"] + issues : []
  }

  private mutating func addSecret(_ secret: [UInt8]) {
    // A shorter secret can be found by brute force (RFC 7518, 3.2).
    guard secret.count >= 32 else {
      issues.append("the file must be a JWK set, or a secret of at least 32 bytes")
      return
    }
    if let key = unsafe cjose_jwk_create_oct_spec(secret, secret.count, nil) {
      unsafe keys.append(JWTKey(key, id: nil, .hs256))
    }
  }

  private mutating func add(_ json: JSON, _ name: String) {
    if let use = json["use"], use != "sig" { return }
    let algorithm: Algorithm
    switch (json["kty"]?.string, json["crv"]?.string) {
    case ("oct"?, _): algorithm = .hs256
    case ("RSA"?, _): algorithm = .rs256
    case ("EC"?, "P-256"?): algorithm = .es256
    default:
      issues.append("\(name) must be of kty oct, RSA, or EC with crv P-256")
      return
    }
    if let alg = json["alg"], alg.string != algorithm.rawValue {
      issues.append("\(name) has an unsupported alg; expected \(algorithm.rawValue)")
      return
    }
    let text = json.encoded
    let key = unsafe text.withUnsafeBytes { bytes in
      unsafe cjose_jwk_import(bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count, nil)
    }
    guard let key = unsafe key else {
      issues.append("\(name) is not a valid JWK")
      return
    }
    let owner = unsafe JWTKey(key, id: json["kid"]?.string, algorithm)
    let bits = owner.bits
    let minimum = algorithm == .rs256 ? 2048 : 256
    guard algorithm == .es256 || bits >= minimum else {
      issues.append("\(name) has \(bits) bits; \(algorithm.rawValue) needs at least \(minimum)")
      return
    }
    keys.append(owner)
  }
}

/// A key that verifies tokens. Thread-safe, because verification only reads it.
@safe
final class JWTKey: Sendable {
  let id: String?
  let algorithm: JWTKeys.Algorithm
  // Safe: libcjose modifies a key only when it is created, given an id, or released.
  private nonisolated(unsafe) let raw: OpaquePointer

  @unsafe fileprivate init(_ raw: OpaquePointer, id: String?, _ algorithm: JWTKeys.Algorithm) {
    unsafe self.raw = raw
    self.id = id
    self.algorithm = algorithm
  }

  fileprivate var bits: Int { unsafe cjose_jwk_get_keysize(raw, nil) }

  /// Returns the payload of `token` (RFC 7515, compact serialization), or nil if this key has not signed it.
  func payload(of token: String) -> [UInt8]? {
    var token = token
    return token.withUTF8 { bytes in
      let text = unsafe UnsafeRawBufferPointer(bytes).assumingMemoryBound(to: CChar.self)
      guard let signed = unsafe cjose_jws_import(text.baseAddress, text.count, nil) else { return nil }
      defer { unsafe cjose_jws_release(signed) }
      var plain: UnsafeMutablePointer<UInt8>?
      var count = 0
      guard unsafe cjose_jws_verify(signed, raw, nil), unsafe cjose_jws_get_plaintext(signed, &plain, &count, nil)
      else {
        return nil
      }
      // The signed token owns the plaintext, so it is copied.
      return unsafe Array(UnsafeBufferPointer(start: plain, count: count))
    }
  }

  deinit { unsafe cjose_jwk_release(raw) }
}
