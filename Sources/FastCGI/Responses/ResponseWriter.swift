import EventLoop

/// The capability to respond to one request. Responding consumes it, so a head cannot be sent twice. Dropping it unused
/// aborts the connection, so that no client mistakes silence for a response.
package struct ResponseWriter: ~Copyable {
  /// The transport of the response. Use it to detect that the peer has closed the connection before there is a
  /// response.
  package let transport: any ResponseTransport
  /// Additional header fields, set in whichever response is sent.
  package var fields: [ResponseHead.Field] = []
  private let writeTimeout: Duration
  private let isHeadRequest: Bool
  private var isUsed = false

  /// - Parameters:
  ///   - isHeadRequest: whether the method is HEAD; the head is then sent without a body.
  ///   - writeTimeout: the maximum time without the peer reading, after which a write fails.
  package init(_ transport: any ResponseTransport, isHeadRequest: Bool, writeTimeout: Duration) {
    self.transport = transport
    self.isHeadRequest = isHeadRequest
    self.writeTimeout = writeTimeout
  }

  /// Starts the response. The first flush sends the head.
  package consuming func begin(_ head: ResponseHead) -> BodyWriter {
    let body = BodyWriter(transport, writeTimeout: writeTimeout)
    var head = head
    for field in fields { head.set(field.name, field.value) }
    head.encode(into: &body.buffer)
    isUsed = true
    return body
  }

  /// Sends the complete `response`, with its length. A peer that closes the connection in the meantime is not an error.
  ///
  /// - Returns: whether all of it was passed to the web server.
  @discardableResult
  package consuming func respond(_ response: Response) async -> Bool {
    var head = response.head
    let sendsBody = !isHeadRequest
    // A HEAD response without a body stands for a stream, whose length is unknown.
    if head.status != 204, sendsBody || !response.body.isEmpty {
      head.set("Content-Length", FieldValue(response.body.count))
    }
    let body = begin(head)
    if sendsBody { body.buffer.append(contentsOf: response.body) }
    do { try await body.finish() } catch { return false }
    return true
  }

  /// Passes the connection to another process; see ``ResponseTransport/handOver(_:_:)``.
  ///
  /// - Returns: whether it is passed; this writer must not be used then.
  package mutating func handOver(_ request: Request, _ pass: (CInt, [UInt8]) -> Bool) -> Bool {
    if transport.handOver(request, pass) { isUsed = true }
    return isUsed
  }

  deinit { if !isUsed { transport.abort() } }
}

/// The body of a response, sent incrementally. Belongs to its loop; exactly one task writes to it.
package final class BodyWriter {
  /// The bytes that the next flush sends. Append to it.
  package var buffer: [UInt8] = []
  /// The number of bytes passed to the web server, including the head.
  package private(set) var sentBytes = 0

  private static let maximumRetainedCapacity = 16 * 1024

  private let transport: any ResponseTransport
  private let maximumWriteBytes: Int
  private let writeTimeout: Duration
  /// Whether a ``flush()`` is in progress.
  package private(set) var isFlushing = false
  /// Whether the peer could not accept the last write at once.
  private var isBlocked = false
  private var isFinished = false

  init(_ transport: any ResponseTransport, writeTimeout: Duration) {
    self.transport = transport
    self.writeTimeout = writeTimeout
    maximumWriteBytes = transport.maximumWriteBytes
  }

  /// Sends ``buffer`` in writes of at most ``ResponseTransport/maximumWriteBytes``, waiting before each one until the
  /// peer can accept it. Cancelling the task does not interrupt it.
  ///
  /// - Throws: ``WriteError``; the rest of the buffer is then discarded.
  package func flush() async throws(WriteError) {
    if try flushNow() { return }
    isFlushing = true
    defer { isFlushing = false }
    var sent = 0
    defer { discardBuffer() }
    while sent < buffer.count {
      let end = min(buffer.count, sent + maximumWriteBytes)
      try await ensureWritable(end - sent)
      let bytes = buffer
      guard try transport.write(bytes.span.extracting(sent..<end)) else { throw .timedOut }
      sentBytes += end - sent
      sent = end
    }
    isBlocked = false
  }

  /// Sends all of ``buffer`` if the peer can accept it at once, which is the usual case and needs no suspension.
  ///
  /// - Returns: whether the buffer was sent. If not, call ``flush()``.
  package func flushNow() throws(WriteError) -> Bool {
    // Moving the buffer out and back takes two exclusivity-checked accesses to the property instead of one for each
    // use.
    var bytes = exchange(&buffer, with: [])
    guard !isFlushing, bytes.count <= maximumWriteBytes, try transport.write(bytes.span) else {
      buffer = bytes
      isBlocked = true
      return false
    }
    isBlocked = false
    sentBytes += bytes.count
    if bytes.capacity <= Self.maximumRetainedCapacity {
      bytes.removeAll(keepingCapacity: true)
      buffer = bytes
    }
    return true
  }

  /// Whether ``flushNow()`` can be expected to send ``buffer`` and `bytes` more: the peer has accepted everything so far.
  package func hasRoom(for bytes: Int) -> Bool {
    !isFlushing && !isBlocked && buffer.count + bytes <= maximumWriteBytes
  }

  /// Sends `record` if no other output is in flight and the peer can accept it. Otherwise does nothing, because the
  /// connection is not silent then. Intended for heartbeats; call it from a timer of the same loop.
  package func sendNow(_ record: [UInt8]) {
    guard !isFinished, hasRoom(for: record.count), transport.isWritable(buffer.count + record.count) else { return }
    buffer.append(contentsOf: record)
    // The writing task sees the failure at its next flush.
    _ = try? flushNow()
  }

  /// Flushes the buffer and completes the response. After an error, the deinitializer aborts it instead.
  package func finish() async throws(WriteError) {
    // The last bytes and the end markers are sent in one write.
    if buffer.count + transport.endMarkerBytes > maximumWriteBytes { try await flush() }
    try await ensureWritable(buffer.count + transport.endMarkerBytes)
    isFinished = true
    let rest = exchange(&buffer, with: [])
    try transport.finish(rest.span)
    sentBytes += rest.count
  }

  private func ensureWritable(_ bytes: Int) async throws(WriteError) {
    if !transport.isPeerClosed, !transport.isWritable(bytes) {
      await transport.waitUntilWritable(for: writeTimeout)
      if !transport.isPeerClosed, !transport.isWritable(bytes) { throw .timedOut }
    }
    if transport.isPeerClosed { throw .peerClosed }
  }

  /// Discards the buffer's content, and also its storage if a large response has enlarged it.
  private func discardBuffer() {
    if buffer.capacity > Self.maximumRetainedCapacity { buffer = [] } else { buffer.removeAll(keepingCapacity: true) }
  }

  deinit { if !isFinished { transport.abort() } }
}
