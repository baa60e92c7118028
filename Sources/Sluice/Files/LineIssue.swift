/// An issue in one line of a file that is edited by hand.
struct LineIssue: Sendable, Equatable, CustomStringConvertible {
  let line: Int
  let reason: String
  var description: String { "line \(line): \(reason)" }
}

extension StringProtocol {
  /// The text without leading and trailing white space.
  var trimmed: SubSequence {
    guard let start = firstIndex(where: { !$0.isWhitespace }), let end = lastIndex(where: { !$0.isWhitespace }) else {
      return self[endIndex...]
    }
    return self[start...end]
  }
}
