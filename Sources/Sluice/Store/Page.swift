import FastCGI

/// A page of a list, selected by the query fields `limit` and `before`.
public struct Page: Sendable {
  /// The maximum number of entries, 1 to 200.
  public let limit: Int
  /// The id of an entry: the page contains only older ones. Nil starts with the newest entry.
  public let before: String?
  /// The maximum size of a page of turns, in bytes. It can make the page shorter than ``limit``, but not empty.
  public internal(set) var maximumBytes = 2 << 20

  static let maximumLimit = 200

  /// Creates a page of a list.
  public init(limit: Int = 50, before: String? = nil) {
    self.limit = limit
    self.before = before
  }

  /// Returns the page of earlier turns that is sent with a prompt, limited to 512 KiB: no model reads more.
  static func history(turns: Int) -> Page {
    var page = Page(limit: turns)
    page.maximumBytes = 512 << 10
    return page
  }

  init(_ request: Request) throws(Failure) {
    limit = try request.integer("limit", in: 1...Self.maximumLimit) ?? 50
    before = request.query("before")
    guard before.map(Identifier.isValid) ?? true else {
      throw Failure(.badRequest, "\"before\" must be an id that matches [A-Za-z0-9_-]{1,64}.")
    }
  }
}
