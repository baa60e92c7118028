import Bytes
import EventLoop
import FastCGI

/// An answer that goes into memory, to a peer that a test can make slow or let go. Belongs to its loop.
package final class MemoryTransport: ResponseTransport {
  /// What was written, in one piece each.
  package private(set) var pieces: [String] = []
  private var bytes: [UInt8] = []
  package private(set) var isFinished = false
  package private(set) var isAborted = false
  package private(set) var isPeerGone = false
  package var peerWent: (() -> Void)?
  /// Called once when the response is complete, or broken off.
  package var onClose: (() -> Void)?
  /// Whether the peer takes anything.
  package var isBlocked = false { didSet { writable.wake() } }
  package let maximumPieceBytes: Int

  private let reactor: Reactor
  private let writable = Waiter()

  package init(on reactor: Reactor, maximumPieceBytes: Int = 8184) {
    self.reactor = reactor
    self.maximumPieceBytes = maximumPieceBytes
  }

  /// All of it, as text: a piece may end within a character.
  package var text: String { String(decoding: bytes, as: UTF8.self) }

  /// The client goes away.
  package func leave() {
    isPeerGone = true
    writable.wake()
    peerWent.take()?()
  }

  package func isWritable(_ bytes: Int) -> Bool { !isBlocked }

  package func waitUntilWritable(for limit: Duration) async {
    await reactor.wait(on: writable, for: limit) { !isPeerGone && isBlocked }
  }

  package func write(_ piece: borrowing Span<UInt8>) throws(WriteError) {
    if isPeerGone { throw .peerGone }
    pieces.append(String(decodingUTF8: piece))
    bytes.append(piece)
  }

  package func finish() {
    isFinished = true
    onClose.take()?()
  }

  package func abort() {
    isAborted = true
    onClose.take()?()
  }
}
