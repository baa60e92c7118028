import EventLoop
import Glibc
import SluiceTesting

/// Clients that read streams through nginx and record the latency of each token.
final class LoadClient {
  struct Report: Sendable {
    var tokens = 0
    var completed = 0
    var failures = 0
    var firstFailure = ""
    /// The times from the upstream's write to the client's read, in nanoseconds.
    var latencies: [UInt32] = []
    /// The times from the client's request to its first token, in nanoseconds.
    var firstTokens: [UInt32] = []
  }

  private let reactor: Reactor
  private let port: UInt16
  private let request: [UInt8]
  /// Called when a stream has ended.
  private let onEnd: () -> Void
  private var streams: [CInt: Stream] = [:]
  private(set) var report = Report()
  /// Whether times are recorded: only between the warm-up and the end of the measurement.
  var isMeasuring = false
  /// Whether tokens are read. A client that reads a flood only looks for its end.
  private let readsTokens: Bool
  /// Whether the server keeps the connection at the end of the stream.
  private let isConnectionKept: Bool

  init(_ options: Options, readsTokens: Bool = true, on reactor: Reactor, onEnd: @escaping () -> Void) {
    self.reactor = reactor
    self.port = options.port
    self.readsTokens = readsTokens
    self.onEnd = onEnd
    request = options.usesWebSocket ? Self.webSocketRequest(options) : Self.httpRequest(options)
    isConnectionKept = options.usesWebSocket
  }

  private static func httpRequest(_ options: Options) -> [UInt8] {
    Array(
      """
      POST \(options.path) HTTP/1.1\r
      Host: localhost\r
      Authorization: Bearer \(options.token)\r
      Content-Type: application/json\r
      Content-Length: \(options.body.utf8.count)\r
      Connection: close\r
      \r
      \(options.body)
      """.utf8)
  }

  /// Returns the handshake of a WebSocket and, without waiting for the response, the message that starts a stream.
  private static func webSocketRequest(_ options: Options) -> [UInt8] {
    let handshake = """
      GET /ws\(options.path) HTTP/1.1\r
      Host: localhost\r
      Authorization: Bearer \(options.token)\r
      Upgrade: websocket\r
      Connection: Upgrade\r
      Sec-WebSocket-Version: 13\r
      Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
      \r

      """
    let message = Array(#"{"type":"start","id":"a","body":\#(options.body)}"#.utf8)
    precondition(message.count < 126, "the body is too long for a short frame")
    // The mask is zero, so the payload stays as it is.
    return Array(handshake.utf8) + [0x81, 0x80 | UInt8(message.count), 0, 0, 0, 0] + message
  }

  var openStreams: Int { streams.count }

  func open() {
    do throws(SystemError) {
      let start = nanoseconds()
      let descriptor = try Loopback.connect(port: port)
      guard descriptor.sendAll(request) else { throw SystemError("send") }
      let number = descriptor.number
      let stream = Stream(descriptor, self, start)
      stream.watch = try reactor.watch(number, for: .readable, handler: stream)
      streams[number] = stream
    } catch {
      fail("\(error)")
      onEnd()
    }
  }

  /// Closes all connections at once.
  func disconnectAll() { streams = [:] }

  private func fail(_ reason: String) {
    report.failures += 1
    if report.firstFailure.isEmpty { report.firstFailure = reason }
  }

  private func close(_ number: CInt) {
    streams[number] = nil
    onEnd()
  }

  private final class Stream: ReadinessHandler {
    private let descriptor: Descriptor
    private unowned let client: LoadClient
    private let start: UInt64
    var watch: Watch?
    private var rest: [UInt8] = []
    private var head: [UInt8] = []
    private var tokens = 0
    private var isComplete = false

    init(_ descriptor: consuming Descriptor, _ client: LoadClient, _ start: UInt64) {
      self.descriptor = descriptor
      self.client = client
      self.start = start
    }

    func handleReadiness(_ ready: Readiness) {
      let count = client.reactor.receiveBuffer.receive(from: descriptor.number) { bytes in
        let now = nanoseconds()
        if head.count < 300 { for index in bytes.indices.prefix(300) { head.append(bytes[index]) } }
        // A flood is not parsed: only its last bytes matter.
        let start = client.readsTokens ? 0 : max(0, bytes.count - 1024)
        if start > 0 { rest = [] }
        for index in start..<bytes.count { rest.append(bytes[index]) }
        read(at: now)
      }
      if count < 0, errno == EAGAIN { return }
      guard count <= 0 || (client.isConnectionKept && isComplete) else { return }
      if isComplete {
        client.report.completed += 1
      } else {
        client.fail("no end: \(String(decoding: head.prefix(300), as: UTF8.self))")
      }
      client.close(descriptor.number)
    }

    /// Finds the end and each token, which encodes the time of its write. A possible partial match at the end is
    /// retained for the next read.
    private func read(at now: UInt64) {
      var index = 0
      while index < rest.count {
        let byte = rest[index]
        if byte == UInt8(ascii: "e"), rest[index...].starts(with: "event: done".utf8) { isComplete = true }
        if byte == UInt8(ascii: "e"), rest[index...].starts(with: #"event":"done""#.utf8) { isComplete = true }
        if byte == UInt8(ascii: "["), rest[index...].starts(with: "[DONE]".utf8) { isComplete = true }
        guard byte == UInt8(ascii: "\"") else {
          index += 1
          continue
        }
        guard rest.count - index >= 11 else { break }
        let isShort = rest[index...].starts(with: #""t":""#.utf8)
        guard isShort || rest[index...].starts(with: #""content":""#.utf8) else {
          index += 1
          continue
        }
        var value: UInt64 = 0
        var end = index + (isShort ? 5 : 11)
        let first = end
        while end < rest.count, rest[end] != UInt8(ascii: "\"") {
          if rest[end] >= 97 { value = value << 4 | UInt64(rest[end] - 97) }
          end += 1
        }
        guard end < rest.count else { break }
        index = end + 1
        if end == first { continue }
        tokens += 1
        client.report.tokens += 1
        guard client.isMeasuring else { continue }
        client.report.latencies.append(UInt32(clamping: now &- value))
        if tokens == 1 { client.report.firstTokens.append(UInt32(clamping: now &- start)) }
      }
      // Retains 11 bytes, because the end may be split across reads too.
      rest.removeFirst(index < rest.count ? index : max(0, rest.count - 11))
    }
  }
}
