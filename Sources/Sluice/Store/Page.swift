import FastCGI

/// A part of a list: `?limit=` of it, `&before=` an id.
public struct Page: Sendable {
  /// At most so many: 1 to 200.
  public let limit: Int
  /// The id that the page ends before; nil takes the newest.
  public let before: String?
  /// What a page of turns may have, though it is shorter for it than its limit.
  public internal(set) var maximumBytes = 2 << 20

  static let maximumLimit = 200

  /// A page of a list.
  public init(limit: Int = 50, before: String? = nil) {
    self.limit = limit
    self.before = before
  }

  /// What goes with a question: no model reads more than half a mebibyte.
  static func history(turns: Int) -> Page {
    var page = Page(limit: turns)
    page.maximumBytes = 512 << 10
    return page
  }

  init(_ request: Request) throws(Failure) {
    limit =
      try request.query("limit").map { (text) throws(Failure) in
        guard let limit = Int(text), (1...Self.maximumLimit).contains(limit) else {
          throw Failure(.badRequest, "\"limit\" must be an integer from 1 to \(Self.maximumLimit).")
        }
        return limit
      } ?? 50
    before = request.query("before")
    guard before.map(Identifier.isValid) ?? true else {
      throw Failure(.badRequest, "\"before\" must be an id that matches [A-Za-z0-9_-]{1,64}.")
    }
  }
}
