import EventLoop
import FastCGI
import Glibc
import SluiceTesting
import Synchronization

/// An OpenAI-compatible server that sends tokens at a fixed rate, each containing the time at which it was written. The
/// first token is sent at once. The streams send independently of each other, not in bursts.
final class LoadUpstream {
  struct Profile: Sendable {
    /// 0 means as fast as the client reads.
    var tokensPerSecond: Double
    var tokens: Int
  }

  private let reactor: Reactor
  private let profile: Profile
  private let timers: PreciseTimers
  private var listener: Listener?
  private var streams: [CInt: Stream] = [:]
  private let activity: Activity

  /// The number of responses that have started and neither ended nor been abandoned by the peer. Can be read on any
  /// thread.
  final class Activity: Sendable {
    private let streams = Atomic(0)
    var count: Int { streams.load(ordering: .relaxed) }
    fileprivate func add(_ change: Int) { streams.add(change, ordering: .relaxed) }
  }

  init(
    _ socket: consuming Descriptor, profile: Profile, activity: Activity, on reactor: Reactor
  ) throws(SystemError) {
    self.activity = activity
    self.reactor = reactor
    self.profile = profile
    timers = try PreciseTimers(on: reactor)
    listener = try Listener(socket, on: reactor, onError: Self.report) { [unowned self] connection in
      let stream = Stream(connection, self)
      streams[stream.number] = stream
      stream.open()
    }
  }

  private static func report(_ error: SystemError) { print("upstream: \(error)") }

  private final class Stream: ReadinessHandler {
    private let descriptor: Descriptor
    private unowned let server: LoadUpstream
    private var watch: Watch?
    private var request: [UInt8] = []
    private var sentTokens = 0
    private var next: LoopClock.Instant
    private var isStreaming = false { didSet { server.activity.add((isStreaming ? 1 : 0) - (oldValue ? 1 : 0)) } }
    private var isClosed = false

    var number: CInt { descriptor.number }

    init(_ descriptor: consuming Descriptor, _ server: LoadUpstream) {
      self.descriptor = descriptor
      self.server = server
      next = server.timers.now
      disableNagle(of: self.descriptor.number)
    }

    func open() { watch = try? server.reactor.watch(number, for: .readable | .peerClosed, handler: self) }

    func handleReadiness(_ ready: Readiness) {
      if isStreaming, server.profile.tokensPerSecond == 0, ready.contains(.writable) { return sendMany() }
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = unsafe recv(number, &buffer, buffer.count, CInt(MSG_DONTWAIT))
      if count < 0, errno == EAGAIN { return }
      guard count > 0 else { return close() }
      request += buffer.prefix(count)
      guard isComplete else { return }
      request = []
      sentTokens = 0
      isStreaming = true
      let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
      guard server.profile.tokensPerSecond > 0 else {
        descriptor.sendAll(Array(head.utf8))
        return startSendingMany()
      }
      // The phase is random, so that the streams do not send at the same time.
      next = server.timers.now + .seconds(Double.random(in: 0..<1) / server.profile.tokensPerSecond)
      sentTokens = 1
      send(head + Self.chunk(Self.token))
      schedule()
    }

    /// Whether the complete body has been received, according to Content-Length.
    private var isComplete: Bool {
      let text = String(decoding: request, as: UTF8.self)
      guard let end = text.firstRange(of: "\r\n\r\n") else { return false }
      let head = text[..<end.lowerBound].lowercased()
      guard let field = head.firstRange(of: "content-length: ") else {
        return head.contains("transfer-encoding: chunked") && text.hasSuffix("0\r\n\r\n")
      }
      let length = Int(head[field.upperBound...].prefix { $0.isNumber }) ?? 0
      return text[end.upperBound...].utf8.count >= length
    }

    private func schedule() { server.timers.schedule(at: next) { [weak self] in self?.sendToken() } }

    private func sendToken() {
      guard isStreaming else { return }
      next += .seconds(1 / server.profile.tokensPerSecond)
      guard sentTokens < server.profile.tokens else {
        isStreaming = false
        return send(Self.chunk(Self.end) + "0\r\n\r\n")
      }
      sentTokens += 1
      send(Self.chunk(Self.token))
      schedule()
    }

    private func send(_ text: String) {
      if !descriptor.sendAll(Array(text.utf8)) { close() }
    }

    private static var token: String {
      #"data: {"id":"chatcmpl-123456789012345678901234","object":"chat.completion.chunk","created":1700000000,"model":"bench-model","system_fingerprint":"fp_1234567890","choices":[{"index":0,"delta":{"content":"\#(timeAsWord()). "},"logprobs":null,"finish_reason":null}]}"#
        + "\n\n"
    }

    private static let end =
      #"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#
      + "\n\ndata: [DONE]\n\n"

    private static func chunk(_ text: String) -> String { "\(String(text.utf8.count, radix: 16))\r\n\(text)\r\n" }

    // MARK: Flat out

    /// Tokens that are sent repeatedly.
    private static let many = Array(String(repeating: Stream.chunk(Stream.token), count: Stream.manyTokens).utf8)
    private static let manyTokens = 200
    private var sentOfMany = 0

    private func startSendingMany() {
      try? watch?.change(to: .readable | .peerClosed | .writable)
      sendMany()
    }

    private func sendMany() {
      while sentTokens < server.profile.tokens {
        let bytes = Self.many
        let count = unsafe bytes[sentOfMany...].withUnsafeBytes { buffer in
          unsafe Glibc.send(number, buffer.baseAddress, buffer.count, CInt(MSG_NOSIGNAL | MSG_DONTWAIT))
        }
        if count < 0, errno == EAGAIN { return }
        guard count > 0 else { return close() }
        sentOfMany += count
        guard sentOfMany == bytes.count else { continue }
        sentOfMany = 0
        sentTokens += Self.manyTokens
      }
      isStreaming = false
      try? watch?.change(to: .readable | .peerClosed)
      send(Self.chunk(Self.end) + "0\r\n\r\n")
    }

    private func close() {
      guard !isClosed else { return }
      isClosed = true
      isStreaming = false
      watch?.cancel()
      server.streams[number] = nil
    }
  }
}

/// Returns the time as a word of 16 letters from a to p, so that the token resembles text.
private func timeAsWord() -> String {
  let now = nanoseconds()
  return String(decoding: (0..<16).map { 97 + UInt8(now >> (60 - 4 * $0) & 15) }, as: UTF8.self)
}

/// Returns the time of the machine's monotonic clock, which all processes share.
func nanoseconds() -> UInt64 {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}
