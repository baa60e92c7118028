import EventLoop
import FastCGI

/// The body of a request, stored separately so that it can be released while the stream is open.
final class RequestBody: Sendable {
  private let content: Locked<[UInt8]>
  let issue: BodyIssue?

  init(_ request: Request) {
    content = Locked(request.body)
    issue = request.bodyIssue
  }

  var bytes: [UInt8] { content.withLock { $0 } }

  func release() { content.withLock { $0 = [] } }
}
