import Bytes
import EventLoop
import FastCGI

/// A transport that writes the response to memory. A test can block or disconnect its peer. Confined to its loop.
package final class MemoryTransport: ResponseTransport {
  /// The content of each write.
  package private(set) var writes: [String] = []
  private var output: [UInt8] = []
  package private(set) var isFinished = false
  package private(set) var isAborted = false
  package private(set) var isPeerClosed = false
  package var onPeerClosed: (() -> Void)?
  /// Called once when the response is finished or aborted.
  package var onClose: (() -> Void)?
  /// Whether the peer accepts no data.
  package var isBlocked = false { didSet { writable.wake() } }
  package let maximumWriteBytes: Int

  private let reactor: Reactor
  private let writable = Waiter()

  package init(on reactor: Reactor, maximumWriteBytes: Int = 8184) {
    self.reactor = reactor
    self.maximumWriteBytes = maximumWriteBytes
  }

  /// The complete output as text. A single write may end within a character.
  package var text: String { String(decoding: output, as: UTF8.self) }

  /// Simulates a client that disconnects.
  package func disconnect() {
    isPeerClosed = true
    writable.wake()
    onPeerClosed.take()?()
  }

  package func isWritable(_ bytes: Int) -> Bool { !isBlocked }

  package func waitUntilWritable(for limit: Duration) async {
    await reactor.wait(on: writable, for: limit) { !isPeerClosed && isBlocked }
  }

  package func write(_ bytes: borrowing Span<UInt8>) throws(WriteError) -> Bool {
    if isPeerClosed { throw .peerClosed }
    if isBlocked { return false }
    writes.append(String(decodingUTF8: bytes))
    output.append(bytes)
    return true
  }

  package func finish(_ bytes: borrowing Span<UInt8>) throws(WriteError) {
    if bytes.count > 0 { _ = try write(bytes) }
    isFinished = true
    onClose.take()?()
  }

  package func abort() {
    isAborted = true
    onClose.take()?()
  }
}
