import EventLoop
import FastCGI
import Glibc
import SluiceTesting

/// An OpenAI-compatible server that sends tokens at a fixed rate, each containing the time at which it was written. It
/// uses one loop and two system calls per token.
final class LoadUpstream {
  struct Profile: Sendable {
    var tokensPerSecond: Double
    var tokens: Int
  }

  private let reactor: Reactor
  private let profile: Profile
  private var listener: Listener?
  private var streams: [CInt: Stream] = [:]

  init(_ socket: consuming Descriptor, profile: Profile, on reactor: Reactor) throws(SystemError) {
    self.reactor = reactor
    self.profile = profile
    listener = try Listener(socket, on: reactor, onError: Self.report) { [unowned self] connection in
      let stream = Stream(connection, profile, reactor) { [unowned self] number in streams[number] = nil }
      streams[stream.number] = stream
      stream.open()
    }
  }

  private static func report(_ error: SystemError) { print("upstream: \(error)") }

  private final class Stream {
    private let descriptor: Descriptor
    private let profile: Profile
    private let reactor: Reactor
    private let onEnd: (CInt) -> Void
    private var watch: Watch?
    private var timer: Timer?
    private var request: [UInt8] = []
    private var sentTokens = 0
    private var next: LoopClock.Instant

    var number: CInt { descriptor.number }

    init(_ descriptor: consuming Descriptor, _ profile: Profile, _ reactor: Reactor, onEnd: @escaping (CInt) -> Void) {
      self.descriptor = descriptor
      self.profile = profile
      self.reactor = reactor
      self.onEnd = onEnd
      self.next = reactor.now
      var yes: CInt = 1
      unsafe setsockopt(
        self.descriptor.number, CInt(IPPROTO_TCP), TCP_NODELAY, &yes, socklen_t(MemoryLayout<CInt>.size))
    }

    func open() { watch = try? reactor.watch(number, for: .readable | .peerClosed) { [unowned self] _ in receive() } }

    private func receive() {
      var buffer = [UInt8](repeating: 0, count: 4096)
      let count = unsafe recv(number, &buffer, buffer.count, CInt(MSG_DONTWAIT))
      if count < 0, errno == EAGAIN { return }
      guard count > 0 else { return close() }
      request += buffer.prefix(count)
      guard isComplete else { return }
      request = []
      sentTokens = 0
      _ = descriptor.sendAll(
        Array("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".utf8))
      // A random offset within the interval, so that a thousand streams do not send at the same time.
      next = reactor.now + .seconds(Double.random(in: 0..<1) / profile.tokensPerSecond)
      schedule()
    }

    /// Whether the complete body has been received, according to Content-Length.
    private var isComplete: Bool {
      let text = String(decoding: request, as: UTF8.self)
      guard let end = text.firstRange(of: "\r\n\r\n"), let field = text.firstRange(of: "Content-Length: ") else {
        return false
      }
      let length = Int(text[field.upperBound...].prefix { $0.isNumber }) ?? 0
      return text[end.upperBound...].utf8.count >= length
    }

    private func schedule() {
      timer = reactor.schedule(after: max(.zero, next - reactor.now)) { [unowned self] in sendToken() }
    }

    private func sendToken() {
      next += .seconds(1 / profile.tokensPerSecond)
      guard sentTokens < profile.tokens else {
        chunk(
          #"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"bench","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#
            + "\n\ndata: [DONE]\n\n")
        _ = descriptor.sendAll(Array("0\r\n\r\n".utf8))
        return
      }
      sentTokens += 1
      chunk(
        #"data: {"id":"chatcmpl-123456789012345678901234","object":"chat.completion.chunk","created":1700000000,"model":"bench-model","system_fingerprint":"fp_1234567890","choices":[{"index":0,"delta":{"content":"\#(timeAsWord()). "},"logprobs":null,"finish_reason":null}]}"#
          + "\n\n")
      schedule()
    }

    private func chunk(_ text: String) {
      if !descriptor.sendAll(Array("\(String(text.utf8.count, radix: 16))\r\n\(text)\r\n".utf8)) { close() }
    }

    private func close() {
      timer?.cancel()
      watch?.cancel()
      onEnd(number)
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
