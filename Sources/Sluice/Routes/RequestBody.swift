import EventLoop
import FastCGI

/// The body of a request, apart from the rest of it: an open stream does not keep it.
final class RequestBody: Sendable {
  private let content: Locked<[UInt8]>
  let isTooLarge: Bool

  init(_ request: Request) {
    content = Locked(request.body)
    isTooLarge = request.isBodyTooLarge
  }

  var bytes: [UInt8] { content.withLock { $0 } }

  func release() { content.withLock { $0 = [] } }
}
