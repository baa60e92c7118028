import Bytes

/// Who asks. The name is the web server's, the tokens file's or the token's; it is never taken from a body.
public struct User: Sendable, Hashable, CustomStringConvertible {
  /// As it was given.
  public let name: String
  /// The name as a directoryName's: all but `[A-Za-z0-9_-]` percent-encoded. It has no dot and no slash.
  package let directoryName: String

  public var description: String { name }

  /// Nil when the name is empty, was not UTF-8, so that two could be the same, or its directoryName's name would be longer than
  /// a file system allows (255 bytes).
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
