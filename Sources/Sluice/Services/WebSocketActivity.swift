import Synchronization

/// The WebSockets of all loops. Thread-safe.
final class WebSocketActivity: Sendable {
  private let open = Atomic(0)
  private let hasSocket = Atomic(false)

  /// The number of connections, including those whose handshake has not been completed.
  var count: Int { open.load(ordering: .relaxed) }

  func begin() { open.add(1, ordering: .relaxed) }
  func end() { open.subtract(1, ordering: .relaxed) }

  /// Whether there is a socket for WebSockets.
  var isServed: Bool { hasSocket.load(ordering: .relaxed) }

  func setServed() { hasSocket.store(true, ordering: .relaxed) }
}
