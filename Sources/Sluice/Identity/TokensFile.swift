import EventLoop
import FoundationEssentials

/// The tokens file: the users and the digests of their bearer tokens. It does not contain tokens.
///
///     # a comment
///     alice:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
///     bob:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752:2027-01-31T00:00:00Z
struct TokensFile: Sendable {
  struct Entry: Sendable {
    let user: User
    let digest: Digest
    let expiry: Date?
  }

  private(set) var entries: [Entry] = []
  /// The indices in ``entries`` of each digest, nearly always one.
  private var positions: [Digest: [Int]] = [:]
  private(set) var issues: [LineIssue] = []

  init(parsing text: String) {
    let text = text.first == "\u{FEFF}" ? text.dropFirst() : text[...]
    // Splitting by "\n" would not work: CRLF is a single `Character` in Swift, different from "\n".
    for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
      let line = line.trimmed
      if line.isEmpty || line.first == "#" { continue }
      switch Self.entry(line) {
      case .success(let entry):
        positions[entry.digest, default: []].append(entries.count)
        entries.append(entry)
      case .failure(let issue): issues.append(LineIssue(line: index + 1, reason: issue.reason))
      }
    }
  }

  /// Returns the user to whom `token` belongs, from the last matching line that has not expired.
  ///
  /// The lookup is by digest. Its timing reveals nothing about a token, because an attacker cannot choose the digest.
  func user(of token: String, now: Date = Date()) -> User? {
    let digest = Digest(of: token)
    let place = positions[digest]?.last { entries[$0].expiry.map { now < $0 } ?? true }
    guard let place, entries[place].digest == digest else { return nil }
    var user = entries[place].user
    user.tokenDigest = digest
    return user
  }

  /// Returns whether a line has the user and the digest of the user's token, expired or not.
  func contains(_ user: User) -> Bool {
    guard let digest = user.tokenDigest else { return true }
    return positions[digest]?.contains { entries[$0].user == user } ?? false
  }

  private struct Issue: Error { let reason: String }

  private static func entry(_ line: Substring) -> Result<Entry, Issue> {
    let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    guard parts.count >= 2, let user = User(String(parts[0])) else {
      return .failure(Issue(reason: "must be user:sha256hex or user:sha256hex:expiry"))
    }
    guard let digest = Digest(hex: parts[1]) else {
      return .failure(Issue(reason: "the digest of \(user) must be the 64 hexadecimal digits of a SHA-256"))
    }
    guard parts.count == 3 else { return .success(Entry(user: user, digest: digest, expiry: nil)) }
    guard let expiry = date(parts[2]) else {
      return .failure(
        Issue(reason: "the expiry of \(user) must be a date such as 2027-01-31 or 2027-01-31T12:00:00Z"))
    }
    return .success(Entry(user: user, digest: digest, expiry: expiry))
  }

  private static func date(_ text: Substring) -> Date? {
    let text = text.contains("T") ? String(text) : "\(text)T00:00:00Z"
    // Foundation parses a date and ignores the text after it.
    guard text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)/) != nil else { return nil }
    return try? Date(text, strategy: .iso8601)
  }
}
