import Bytes

/// The user who sent a request. The name comes from the web server, the tokens file, the token, or an embedding
/// program's authenticator, never from a request body.
public struct User: Sendable, Hashable, CustomStringConvertible {
  /// The unmodified name.
  public let name: String
  /// The name of the user's directory: the name with all bytes except `[A-Za-z0-9_-]` percent-encoded. It contains no
  /// dot and no slash.
  package let directoryName: String

  /// The digest of the token that identified the user, if it is one of the tokens file. Not part of the identity.
  var tokenDigest: Digest?

  public var description: String { name }

  public static func == (a: User, b: User) -> Bool { a.name == b.name }
  public func hash(into hasher: inout Hasher) { hasher.combine(name) }

  /// Creates a user. Returns nil if the name is empty, contains U+FFFD (decoded from invalid UTF-8, it could make two
  /// names equal), or needs a directory name that is longer than file systems allow (255 bytes).
  public init?(_ name: String) {
    var directoryName = ""
    for byte in name.utf8 {
      if Identifier.isValid(byte) {
        directoryName.unicodeScalars.append(Unicode.Scalar(byte))
      } else {
        directoryName += "%" + CollectionOfOne(byte).hex.uppercased()
      }
    }
    guard !directoryName.isEmpty, !name.unicodeScalars.contains("\u{FFFD}"), directoryName.utf8.count <= 255 else {
      return nil
    }
    self.name = name
    self.directoryName = directoryName
  }
}
