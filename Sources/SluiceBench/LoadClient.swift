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
  }

  private let reactor: Reactor
  private let port: UInt16
  private let request: [UInt8]
  private let onEnd: () -> Void
  private var streams: [CInt: Stream] = [:]
  fileprivate(set) var report = Report()
  /// Whether latencies are recorded: only between the warm-up and the end of the measurement.
  var isMeasuring = false

  init(port: UInt16, token: String, on reactor: Reactor, onEnd: @escaping () -> Void) {
    self.reactor = reactor
    self.port = port
    self.onEnd = onEnd
    let body = #"{"message":"Go on."}"#
    request = Array(
      """
      POST /api/chat HTTP/1.1\r
      Host: localhost\r
      Authorization: Bearer \(token)\r
      Content-Type: application/json\r
      Content-Length: \(body.utf8.count)\r
      Connection: close\r
      \r
      \(body)
      """.utf8)
  }

  var openStreams: Int { streams.count }

  func open() {
    do throws(SystemError) {
      let descriptor = try Loopback.connect(port: port)
      guard descriptor.sendAll(request) else { throw SystemError("send") }
      let number = descriptor.number
      let stream = Stream(descriptor, self)
      stream.watch = try reactor.watch(number, for: .readable) { [unowned stream] _ in stream.receive() }
      streams[number] = stream
    } catch { fail("\(error)") }
  }

  fileprivate func fail(_ reason: String) {
    report.failures += 1
    if report.firstFailure.isEmpty { report.firstFailure = reason }
  }

  fileprivate func close(_ stream: Stream, _ number: CInt) {
    stream.watch?.cancel()
    streams[number] = nil
    if streams.isEmpty { onEnd() }
  }

  fileprivate final class Stream {
    private let descriptor: Descriptor
    private unowned let client: LoadClient
    var watch: Watch?
    private var rest: [UInt8] = []
    private var head: [UInt8] = []
    private var isComplete = false

    init(_ descriptor: consuming Descriptor, _ client: LoadClient) {
      self.descriptor = descriptor
      self.client = client
    }

    func receive() {
      let now: UInt64
      let count = unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 4096) { buffer -> Int in
        let count = unsafe recv(descriptor.number, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT))
        if count > 0 { unsafe rest.append(contentsOf: buffer.prefix(count)) }
        return count
      }
      now = nanoseconds()
      if count < 0, errno == EAGAIN { return }
      if head.count < 200 { head.append(contentsOf: rest) }
      guard count > 0 else {
        if isComplete {
          client.report.completed += 1
        } else {
          client.fail("no done: \(String(decoding: head.prefix(300), as: UTF8.self))")
        }
        return client.close(self, descriptor.number)
      }
      read(at: now)
    }

    /// Finds `event: done` and each `"t":"WORD. "`, where WORD encodes the time of the write. A possible partial match
    /// at the end is retained for the next read.
    private func read(at now: UInt64) {
      var index = 0
      while index < rest.count {
        guard rest[index] == UInt8(ascii: "\"") else {
          if rest[index] == UInt8(ascii: "e"), rest[index...].starts(with: "event: done".utf8) { isComplete = true }
          index += 1
          continue
        }
        guard rest.count - index >= 5 else { break }
        guard rest[index...].starts(with: #""t":""#.utf8) else {
          index += 1
          continue
        }
        var value: UInt64 = 0
        var end = index + 5
        while end < rest.count, rest[end] != UInt8(ascii: "\"") {
          if rest[end] >= 97 { value = value << 4 | UInt64(rest[end] - 97) }
          end += 1
        }
        guard end < rest.count else { break }
        client.report.tokens += 1
        if client.isMeasuring { client.report.latencies.append(UInt32(clamping: now &- value)) }
        index = end + 1
      }
      // Retains 11 bytes, because `event: done` may be split across reads too.
      rest.removeFirst(index < rest.count ? index : max(0, rest.count - 11))
    }
  }
}
