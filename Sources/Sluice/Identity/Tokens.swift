import Bytes
import EventLoop
import Glibc

/// Bearer tokens. Only their digests are stored.
package enum Tokens {
  /// Creates a random 256-bit token and appends its digest to a tokens file. Creates the file (mode 0600) if it does
  /// not exist, locks it while writing (flock(2)), and syncs it.
  ///
  /// - Returns: the token, which is not stored anywhere.
  /// - Throws: ``StartError`` when the name cannot be a user's; ``SystemError`` when the file cannot be written.
  package static func add(user name: String, toFile path: String) throws -> String {
    // A name that begins with a hyphen is a mistyped option.
    guard User(name) != nil, !name.hasPrefix("-"), !name.contains(":"), !name.contains("#"),
      name.allSatisfy({ !$0.isWhitespace })
    else {
      throw StartError(
        message:
          "user names must not be empty, begin with \"-\", or contain white space, \":\" or \"#\"; see sluice --help")
    }
    let token = "sluice_" + randomBytes(32).hex
    let descriptor = try Descriptor(
      unsafe open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0o600), from: "open \(path)")
    guard flock(descriptor.number, LOCK_EX) == 0 else { throw SystemError("lock \(path)") }
    var line = Array("\(name):\(Digest(of: token).hex)\n".utf8)
    // An unterminated last line would otherwise run into the new line.
    if let last = try readFile(path).last, last != 0x0A { line.insert(0x0A, at: 0) }
    guard unsafe write(descriptor.number, line, line.count) == line.count, fdatasync(descriptor.number) == 0 else {
      throw SystemError("write \(path)")
    }
    return token
  }
}
