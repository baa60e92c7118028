import EventLoop

/// The exclusive right to respond to one Idempotency-Key, held as a file lock: it applies across processes, and a
/// killed process releases it.
final class IdempotencyLock: Sendable {
  /// The digest of the request that acquired the lock.
  let request: String
  /// The digest of the key.
  let key: String
  let path: String
  let descriptor: Descriptor
  private let unit: DescriptorUnit?
  /// Whether a completed response is stored in the file or queued for storing. The file then outlives the stream.
  let isFileRetained = Locked(false)

  init(
    _ path: String, key: String, request: String, _ descriptor: consuming Descriptor, _ unit: DescriptorUnit?
  ) {
    self.path = path
    self.key = key
    self.request = request
    self.descriptor = descriptor
    self.unit = unit
  }

  /// Marks the response as stored or queued, so that ``Store/release(_:)`` does not remove the file. The queue holds
  /// the lock until the response is stored.
  func retainFile() { isFileRetained.withLock { $0 = true } }
}

enum IdempotencyState: Sendable {
  /// The key is free; the caller now holds its lock and must generate the response.
  case acquired(IdempotencyLock)
  /// The stream with this id holds the lock.
  case inProgress(stream: String)
  case completed(Replay)
}
