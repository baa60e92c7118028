import Bytes
import CCrypto

/// A SHA-256 digest (FIPS 180-4). Comparison takes constant time.
struct Digest: Sendable, Hashable {
  private let bytes: [UInt8]

  init(of text: String) { self.init(of: Array(text.utf8)) }

  init(of text: [UInt8]) {
    var digest = [UInt8](repeating: 0, count: 32)
    var length: CUnsignedInt = 0
    let result = unsafe EVP_Digest(text, text.count, &digest, &length, EVP_sha256(), nil)
    precondition(result == 1 && length == 32, "libcrypto has no SHA-256")
    bytes = digest
  }

  /// Creates a digest from 64 hexadecimal digits; nil for any other text.
  init?(hex: some StringProtocol) {
    let digits = Array(hex.utf8)
    guard digits.count == 64 else { return nil }
    let bytes = stride(from: 0, to: 64, by: 2).compactMap { UInt8(hex: digits[$0..<($0 + 2)]) }
    guard bytes.count == 32 else { return nil }
    self.bytes = bytes
  }

  var hex: String { bytes.hex }

  func hash(into hasher: inout Hasher) { hasher.combine(bytes) }

  static func == (a: Digest, b: Digest) -> Bool { unsafe CRYPTO_memcmp(a.bytes, b.bytes, 32) == 0 }
}

/// Returns random bytes for tokens, from libcrypto's generator (RAND_bytes(3)).
func randomBytes(_ count: Int) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: count)
  let result = unsafe RAND_bytes(&bytes, CInt(count))
  precondition(result == 1, "the system has no random numbers")
  return bytes
}
