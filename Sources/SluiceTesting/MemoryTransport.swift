import Bytes
import EventLoop
import FastCGI

/// An answer that goes into memory, to a peer that a test can make slow or let go. Belongs to its loop.
public final class MemoryTransport: ResponseTransport {
  /// What was written, in one piece each.
  public private(set) var pieces: [String] = []
  public private(set) var isFinished = false
  public private(set) var isAborted = false
  public private(set) var isPeerGone = false
  public var peerWent: (() -> Void)?
  /// Whether the peer takes anything.
  public var isBlocked = false { didSet { writable.wake() } }
  public let maximumPieceBytes: Int

  private let reactor: Reactor
  private let writable = Waiter()

  public init(on reactor: Reactor, maximumPieceBytes: Int = 8184) {
    self.reactor = reactor
    self.maximumPieceBytes = maximumPieceBytes
  }

  public var text: String { pieces.joined() }

  /// The client goes away.
  public func leave() {
    isPeerGone = true
    writable.wake()
    peerWent.take()?()
  }

  public func isWritable(_ bytes: Int) -> Bool { !isBlocked }

  public func waitUntilWritable(for limit: Duration) async {
    await reactor.wait(on: writable, for: limit) { !isPeerGone && isBlocked }
  }

  public func write(_ piece: borrowing Span<UInt8>) throws(WriteError) {
    if isPeerGone { throw .peerGone }
    pieces.append(String(decodingUTF8: piece))
  }

  public func finish() { isFinished = true }
  public func abort() { isAborted = true }
}
