/// A path in which segments may be placeholders: `/api/streams/{id}`.
struct PathPattern: Sendable, ExpressibleByStringLiteral {
  let text: String
  private let segments: [Substring]

  init(_ text: String) {
    self.text = text
    segments = text.split(separator: "/", omittingEmptySubsequences: false)
  }

  init(stringLiteral text: String) { self.init(text) }

  /// The number of segments.
  var count: Int { segments.count }

  /// The values of the placeholders, or nil when `path` is another one. A placeholder is never empty.
  func match(_ path: RequestPath) -> [String: String]? {
    guard path.segments.count == segments.count else { return nil }
    var values: [String: String] = [:]
    for (segment, part) in zip(segments, path.segments) {
      if segment.first == "{" {
        guard !part.isEmpty else { return nil }
        values[String(segment.dropFirst().dropLast())] = String(part)
      } else if segment != part {
        return nil
      }
    }
    return values
  }
}

/// The path of a request, split once for all the patterns that it is compared with.
struct RequestPath: Sendable {
  let text: String
  fileprivate let segments: [Substring]

  /// - Parameter maximumSegments: the most that a pattern has. The rest of a longer path is not looked at.
  init(_ text: String, maximumSegments: Int) {
    self.text = text
    segments = text.split(separator: "/", maxSplits: maximumSegments, omittingEmptySubsequences: false)
  }
}
