/// A path in which segments can be placeholders: `/api/streams/{id}`.
struct PathPattern: Sendable, ExpressibleByStringLiteral {
  let text: String
  private let segments: [Substring]

  init(_ text: String) {
    self.text = text
    segments = text.split(separator: "/", omittingEmptySubsequences: false)
  }

  init(stringLiteral text: String) { self.init(text) }

  /// Whether the path has no placeholder.
  var isConstant: Bool { !segments.contains { $0.first == "{" } }

  /// The number of segments.
  var count: Int { segments.count }

  /// Returns the values of the placeholders; nil if `path` does not match. A placeholder matches no empty segment.
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

/// The path of a request, split once for comparison with all patterns.
struct RequestPath: Sendable {
  let text: String
  fileprivate let segments: [Substring]

  /// - Parameter maximumSegments: the largest number of segments in any pattern. A longer path is not split further.
  init(_ text: String, maximumSegments: Int) {
    self.text = text
    segments = text.split(separator: "/", maxSplits: maximumSegments, omittingEmptySubsequences: false)
  }
}
