import Bytes
import EventLoop
import Glibc

/// The observer of a WebSocket, called on its loop.
package protocol WebSocketDelegate: AnyObject {
  /// Called with the request that opens the WebSocket. ``WebSocketConnection/accept(_:subprotocol:)`` or
  /// ``WebSocketConnection/refuse(_:)`` must be called then, now or later.
  func webSocketDidReceive(_ request: HandshakeRequest)

  /// Called with a text message.
  func webSocketDidReceive(text: [UInt8])

  /// Called when output that the client could not accept at once has been sent.
  func webSocketDidDrain()

  /// Called once, when the client has left, or the connection has been closed.
  func webSocketDidClose()
}

/// A WebSocket on an accepted connection: the handshake, frames in both directions, pings, and an orderly end.
///
/// Belongs to its loop. It owns the socket, and a delegate owns it.
package final class WebSocketConnection: ReadinessHandler, Flushable {
  /// The limits of a connection.
  package struct Limits: Sendable {
    /// The maximum size of a message.
    package var maximumMessageBytes: Int
    /// The time between two pings, within which the client must respond; 0 disables pings.
    package var pingInterval: Duration
    /// The maximum time without the client reading anything.
    package var writeTimeout: Duration

    package init(maximumMessageBytes: Int, pingInterval: Duration, writeTimeout: Duration) {
      self.maximumMessageBytes = maximumMessageBytes
      self.pingInterval = pingInterval
      self.writeTimeout = writeTimeout
    }
  }

  private enum State {
    /// The request is incomplete.
    case handshake(HandshakeParser)
    /// The delegate decides about the request.
    case deciding
    case open(FrameReader)
    /// The last bytes are being sent, or the client is to close its side.
    case closing
    case closed
  }

  private var state = State.handshake(HandshakeParser())
  private var descriptor: Descriptor?
  private let reactor: Reactor
  private let limits: Limits
  package unowned var delegate: (any WebSocketDelegate)?
  private var watch: Watch?
  /// The end of the handshake or of the closing.
  private var deadline: Timer?
  private var pingTimer: Timer?
  private var isPongDue = false
  /// The bytes received before the handshake was decided on.
  private var earlyBytes: [UInt8] = []

  private var output: [UInt8] = []
  /// The number of bytes of ``output`` that have been sent.
  private var sent = 0
  private var isFlushScheduled = false
  /// Whether there may be bytes to read that were left until the output has been sent.
  private var mustReceive = false
  /// Whether reading is suspended, for messages that take time.
  package var isPaused = false { didSet { if !isPaused, oldValue { receive() } } }
  /// Whether the client could not accept all output at once.
  package private(set) var isBlocked = false
  private var writeTimer: Timer?
  private var hasProgressed = false
  /// The number of writes since the last scheduled flush that made room for more output.
  private var writesInEvent = 0

  /// The events of a connection that is not blocked. A writable socket would cause one for each frame that the web
  /// server has read.
  private static let quiet: Readiness = .readable | .peerClosed | .edgeTriggered
  private static let handshakeTimeout: Duration = .seconds(10)
  private static let closingTimeout: Duration = .seconds(2)
  private static let maximumOutputBytes = 32 * 1024
  private static let maximumWritesInEvent = 16
  private static let maximumReads = 16

  package init(_ descriptor: consuming Descriptor, _ limits: Limits, on reactor: Reactor) {
    self.descriptor = consume descriptor
    self.limits = limits
    self.reactor = reactor
  }

  /// Starts reading. ``delegate`` must have been set.
  package func open() {
    deadline = reactor.schedule(after: Self.handshakeTimeout) { [unowned self] in close() }
    guard let number = descriptor?.number else { return }
    do {
      watch = try reactor.watch(number, for: Self.quiet, handler: self)
    } catch { close() }
  }

  deinit { watch?.cancelBeforeClose() }

  /// Whether nothing can be sent any more.
  package var isClosed: Bool {
    switch state {
    case .closing, .closed: true
    case .handshake, .deciding, .open: false
    }
  }

  // MARK: Handshake

  /// Opens the WebSocket.
  package func accept(_ request: HandshakeRequest, subprotocol: String?) {
    guard case .deciding = state else { return }
    guard let reader = FrameReader(maximumMessageBytes: limits.maximumMessageBytes) else { return close() }
    deadline?.cancel()
    state = .open(reader)
    output += request.acceptance(subprotocol: subprotocol)
    flush()
    // The client can have left.
    if isClosed { return }
    if limits.pingInterval > .zero { schedulePing() }
    let early = exchange(&earlyBytes, with: [])
    read(early.span)
    receive()
  }

  /// Sends a complete HTTP response instead of opening the WebSocket, and closes the connection.
  package func refuse(_ response: [UInt8]) {
    guard case .deciding = state else { return }
    output += response
    finish()
  }

  // MARK: Receiving

  package func handleReadiness(_ ready: Readiness) {
    if ready.contains(.writable), isBlocked { flush() }
    receive()
    if ready.contains(anyOf: .peerClosed | .hangup | .error) { close() }
  }

  private var isReading: Bool {
    switch state {
    case .handshake, .closing: true
    // A client that reads nothing must not make more output necessary.
    case .open: !isBlocked && !isPaused && output.count <= Self.maximumOutputBytes
    case .deciding, .closed: false
    }
  }

  private func receive() {
    for _ in 0..<Self.maximumReads {
      guard isReading, let number = descriptor?.number else {
        mustReceive = true
        return
      }
      let count = reactor.receiveBuffer.receive(from: number) { read($0) }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return }
      guard count > 0 else { return close() }
    }
    // A client that never stops sending must not starve the loop's streams.
    _ = reactor.schedule(after: .zero) { [weak self] in self?.receive() }
  }

  private func read(_ bytes: borrowing Span<UInt8>) {
    switch state {
    case .handshake(var parser):
      let status = parser.read(bytes)
      state = .handshake(parser)
      switch status {
      case .incomplete: break
      case .complete(let request, let rest):
        state = .deciding
        earlyBytes = rest
        delegate?.webSocketDidReceive(request)
      case .malformed:
        output += Self.badRequest.utf8
        finish()
      }
    case .open(let reader):
      let events = reader.read(bytes, output: &output)
      if !output.isEmpty { scheduleFlush() }
      for event in events { handle(event) }
    case .deciding, .closing, .closed: break
    }
  }

  private func handle(_ event: FrameReader.Event) {
    guard case .open = state else { return }
    switch event {
    case .text(let text): delegate?.webSocketDidReceive(text: text)
    case .binary: close(.unsupportedData)
    case .pong: isPongDue = false
    // The reply is part of the output.
    case .close, .violation: finish()
    }
  }

  private static let badRequest =
    "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

  // MARK: Sending

  /// Returns whether `bytes` more can be appended to the output. Sends it first if that is necessary, and possible
  /// without waiting.
  package func makeRoom(for bytes: Int) -> Bool {
    if isBlocked { return false }
    if output.count + bytes <= Self.maximumOutputBytes { return true }
    guard writesInEvent < Self.maximumWritesInEvent else { return false }
    writesInEvent += 1
    flush()
    return !isBlocked && output.count + bytes <= Self.maximumOutputBytes
  }

  /// Moves the output of an open WebSocket out, to append frames to it. ``putOutput(_:)`` must follow.
  package func takeOutput() -> [UInt8] {
    let bytes = exchange(&output, with: [])
    return bytes.isEmpty ? reactor.takeBuffer() : bytes
  }

  /// Moves the output back, and schedules a flush for when the current event has been handled.
  package func putOutput(_ bytes: consuming [UInt8]) {
    output = bytes
    scheduleFlush()
  }

  private func scheduleFlush() {
    guard !isFlushScheduled, !isBlocked else { return }
    isFlushScheduled = true
    reactor.scheduleFlush(self)
  }

  package func flushPending() {
    writesInEvent = 0
    if exchange(&isFlushScheduled, with: false) { flush() }
  }

  /// Sends the output, as far as the client accepts it now.
  package func flush() {
    guard let number = descriptor?.number else { return }
    while sent < output.count {
      let count = unsafe output[sent...].withUnsafeBufferPointer { bytes in
        unsafe send(number, bytes.baseAddress, bytes.count, CInt(MSG_DONTWAIT | MSG_NOSIGNAL))
      }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return block() }
      guard count >= 0 else { return close() }
      sent += count
      hasProgressed = true
    }
    sent = 0
    reactor.keepBuffer(exchange(&output, with: []))
    writeTimer?.cancel()
    if exchange(&isBlocked, with: false) {
      try? watch?.change(to: Self.quiet)
      delegate?.webSocketDidDrain()
    }
    if exchange(&mustReceive, with: false) { receive() }
    if case .closing = state, let number = descriptor?.number { shutdown(number, CInt(SHUT_WR)) }
  }

  private func block() {
    if !exchange(&isBlocked, with: true) { try? watch?.change(to: Self.quiet | .writable) }
    guard writeTimer?.isPending != true else { return }
    hasProgressed = false
    writeTimer = reactor.schedule(after: limits.writeTimeout) { [unowned self] in
      if hasProgressed { block() } else { close() }
    }
  }

  private func schedulePing() {
    pingTimer = reactor.schedule(after: limits.pingInterval) { [unowned self] in
      if isBlocked {
        // The client is slow, which the write timeout limits. Its response may not have been read.
        isPongDue = false
      } else if isPongDue {
        return close()
      } else {
        isPongDue = true
        Frame.appendHeader(.ping, payloadBytes: 0, to: &output)
        flush()
      }
      if !isClosed { schedulePing() }
    }
  }

  // MARK: Closing

  /// Closes the WebSocket with a code, after the output has been sent.
  package func close(_ code: CloseCode) {
    guard case .open = state else { return }
    Frame.appendClose(code, to: &output)
    finish()
  }

  /// Sends the rest of the output, then waits for the client to close its side.
  private func finish() {
    if isClosed { return }
    state = .closing
    pingTimer?.cancel()
    deadline?.cancel()
    deadline = reactor.schedule(after: Self.closingTimeout) { [unowned self] in close() }
    delegate?.webSocketDidClose()
    flush()
  }

  /// Closes the connection now.
  package func close() {
    if case .closed = state { return }
    let wasClosing = isClosed
    state = .closed
    deadline?.cancel()
    pingTimer?.cancel()
    writeTimer?.cancel()
    watch?.cancelBeforeClose()
    descriptor = nil
    output = []
    if !wasClosing { delegate?.webSocketDidClose() }
    onClosed?()
  }

  /// Called when the socket has been closed; the connection is not used any more.
  package var onClosed: (() -> Void)?
}
