import EventLoop

/// The right to answer one request. It is used up by answering, so a head cannot be sent twice; dropped unused, it
/// breaks the connection off, so that no client takes silence for an answer.
package struct ResponseWriter: ~Copyable {
  /// Where the answer goes: for learning that the peer has gone before there is an answer.
  package let transport: any ResponseTransport
  /// Header fields that the answer gets besides its own, whatever it is.
  package var fields: [ResponseHead.Field] = []
  private let writeTimeout: Duration
  private let isHeadRequest: Bool
  private var isUsed = false

  /// - Parameters:
  ///   - isHeadRequest: whether the method was HEAD: the head is sent then and no body.
  ///   - writeTimeout: how long a peer may take nothing before it is given up.
  package init(_ transport: any ResponseTransport, isHeadRequest: Bool, writeTimeout: Duration) {
    self.transport = transport
    self.isHeadRequest = isHeadRequest
    self.writeTimeout = writeTimeout
  }

  /// Begins an answer. The head goes out with the first flush.
  package consuming func begin(_ head: ResponseHead) -> BodyWriter {
    let body = BodyWriter(transport, writeTimeout: writeTimeout)
    var head = head
    for field in fields { head.set(field.name, field.value) }
    head.encode(into: &body.buffer)
    isUsed = true
    return body
  }

  /// Answers with all of `response`, with its length. A peer that goes meanwhile is not an error.
  ///
  /// - Returns: whether the web server took all of it.
  @discardableResult
  package consuming func respond(_ response: Response) async -> Bool {
    var head = response.head
    let sendsBody = !isHeadRequest
    // The head of what would be streamed says no length.
    if head.status != 204, sendsBody || !response.body.isEmpty {
      head.set("Content-Length", FieldValue(response.body.count))
    }
    let body = begin(head)
    if sendsBody { body.buffer.append(contentsOf: response.body) }
    do { try await body.finish() } catch { return false }
    return true
  }

  deinit { if !isUsed { transport.abort() } }
}

/// The body of an answer, sent piece by piece. Belongs to its loop; has one writing task.
package final class BodyWriter {
  /// What is to be sent with the next flush. Append to it.
  package var buffer: [UInt8] = []
  /// How many bytes have been handed to the web server, the head included.
  package private(set) var sentBytes = 0

  private static let maximumRetainedCapacity = 16 * 1024

  private let transport: any ResponseTransport
  private let writeTimeout: Duration
  /// Whether a ``flush()`` waits for the peer.
  package private(set) var isFlushing = false
  private var isFinished = false

  init(_ transport: any ResponseTransport, writeTimeout: Duration) {
    self.transport = transport
    self.writeTimeout = writeTimeout
  }

  /// Sends what is in ``buffer``, one piece at a time, each when the peer can take it. The task's cancellation does
  /// not cut it short.
  ///
  /// - Throws: ``WriteError``; the rest of the buffer is dropped then.
  package func flush() async throws(WriteError) {
    if try flushNow() { return }
    isFlushing = true
    defer { isFlushing = false }
    var sent = 0
    defer { empty() }
    while sent < buffer.count {
      let end = min(buffer.count, sent + transport.maximumWriteBytes)
      try await ensureWritable(end - sent)
      try transport.write(buffer.span.extracting(sent..<end))
      sentBytes += end - sent
      sent = end
    }
  }

  /// Sends all of ``buffer`` if the peer can take it at once: the usual case, without a suspension.
  ///
  /// - Returns: whether it was sent. If not, ``flush()`` is to follow.
  package func flushNow() throws(WriteError) -> Bool {
    if transport.isPeerClosed { throw .peerClosed }
    // Taken out and put back, which is two checked accesses to the property instead of one for each use.
    var bytes = exchange(&buffer, with: [])
    guard !isFlushing, bytes.count <= transport.maximumWriteBytes, transport.isWritable(bytes.count) else {
      buffer = bytes
      return false
    }
    try transport.write(bytes.span)
    sentBytes += bytes.count
    if bytes.capacity <= Self.maximumRetainedCapacity {
      bytes.removeAll(keepingCapacity: true)
      buffer = bytes
    }
    return true
  }

  /// Whether ``flushNow()`` would send all of ``buffer`` and `bytes` more.
  package func canSend(_ bytes: Int) -> Bool {
    let bytes = buffer.count + bytes
    return !isFlushing && bytes <= transport.maximumWriteBytes && transport.isWritable(bytes)
  }

  /// Sends `record` at once if nothing else is on its way and the peer can take it; otherwise does nothing, because
  /// then the connection is not silent. For heartbeats, from a timer of the same loop.
  package func sendNow(_ record: [UInt8]) {
    guard !isFinished, canSend(record.count) else { return }
    buffer.append(contentsOf: record)
    // A failure shows itself to the writing task at its next flush.
    _ = try? flushNow()
  }

  /// Sends the rest and ends the answer. After an error it is broken off instead.
  package func finish() async throws(WriteError) {
    try await flush()
    // FastCGI's end markers are 24 bytes.
    try await ensureWritable(24)
    isFinished = true
    transport.finish()
  }

  private func ensureWritable(_ bytes: Int) async throws(WriteError) {
    if !transport.isPeerClosed, !transport.isWritable(bytes) {
      await transport.waitUntilWritable(for: writeTimeout)
      if !transport.isPeerClosed, !transport.isWritable(bytes) { throw .timedOut }
    }
    if transport.isPeerClosed { throw .peerClosed }
  }

  /// Drops what was sent, and the storage too when a large answer has made it large.
  private func empty() {
    if buffer.capacity > Self.maximumRetainedCapacity { buffer = [] } else { buffer.removeAll(keepingCapacity: true) }
  }

  deinit { if !isFinished { transport.abort() } }
}
