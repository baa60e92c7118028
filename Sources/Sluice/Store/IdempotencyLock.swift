import EventLoop

/// The one right to answer the requests that carry a certain key, for as long as it is kept: a locked file, so it holds
/// across processes, and a process that is killed gives it back.
final class IdempotencyLock: Sendable {
  /// The digest of the request that it was acquired for.
  let request: String
  /// The digest of the key.
  let key: String
  let path: String
  let descriptor: Descriptor
  private let unit: DescriptorUnit?
  /// Whether it outlives its stream: a complete answer is kept in its file, or waits to be stored.
  let isSettled = Locked(false)

  init(
    _ path: String, key: String, request: String, _ descriptor: consuming Descriptor, _ unit: DescriptorUnit?
  ) {
    self.path = path
    self.key = key
    self.request = request
    self.descriptor = descriptor
    self.unit = unit
  }

  /// A complete answer waits to be stored: the key is nobody else's until it is.
  func settle() { isSettled.withLock { $0 = true } }
}

enum IdempotencyState: Sendable {
  /// Nobody answers it: the caller may.
  case acquired(IdempotencyLock)
  /// A stream of this id does.
  case inProgress(stream: String)
  case completed(Replay)
}
