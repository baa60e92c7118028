import EventLoop
import FoundationEssentials

/// The tokens file: who may ask with which bearer token. It holds digests, not tokens.
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
  /// The places of each digest in ``entries``: nearly always one.
  private var places: [Digest: [Int]] = [:]
  private(set) var issues: [LineIssue] = []

  init(parsing text: String) {
    let text = text.first == "\u{FEFF}" ? text.dropFirst() : text[...]
    // Not by "\n": to a Swift string CRLF is one character, and another.
    for (index, line) in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated() {
      let line = line.trimmed
      if line.isEmpty || line.first == "#" { continue }
      switch Self.entry(line) {
      case .success(let entry):
        places[entry.digest, default: []].append(entries.count)
        entries.append(entry)
      case .failure(let issue): issues.append(LineIssue(line: index + 1, reason: issue.reason))
      }
    }
  }

  /// The user to whom `token` belongs, by the last line that is in force.
  ///
  /// Looked up by its digest: the time that this takes tells nothing of a token, of which nobody can choose the digest.
  func user(of token: String, now: Date = Date()) -> User? {
    let digest = Digest(of: token)
    let place = places[digest]?.last { entries[$0].expiry.map { now < $0 } ?? true }
    return place.flatMap { entries[$0].digest == digest ? entries[$0].user : nil }
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
    // Foundation reads a date and passes over what follows it.
    guard text.wholeMatch(of: /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:?\d\d)/) != nil else { return nil }
    return try? Date(text, strategy: .iso8601)
  }
}
