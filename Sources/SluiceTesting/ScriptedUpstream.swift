import EventLoop
import FastCGI
import Foundation
import Synchronization

/// An HTTP server on loopback that sends exactly the bytes of a script, valid or not. Each connection has its own
/// thread, so a script is straight-line code that can block.
public final class ScriptedUpstream: Sendable {
  /// A request as received.
  public struct Request: Sendable {
    /// The request line and the header fields, unmodified.
    public let head: String
    /// The body, as text.
    public let body: String
  }

  /// Responds to one request. It runs on the thread of its connection and can block.
  public typealias Script = @Sendable (Exchange) -> Void

  /// The port on 127.0.0.1, chosen by the system.
  public let port: UInt16
  private let seen = Locked<[Request]>([])
  private let accepted = Atomic(0)
  private let recordedCloseTimes = Locked<[ContinuousClock.Instant]>([])
  private let listener: Int32

  /// The value for `SLUICE_UPSTREAM_URL`.
  public var baseURL: String { "http://127.0.0.1:\(port)/v1" }
  /// The requests received so far.
  public var requests: [Request] { seen.withLock { $0 } }
  /// The number of accepted connections.
  public var connections: Int { accepted.load(ordering: .relaxed) }
  /// The times at which ``Exchange/waitUntilClosed(within:)`` saw a peer close its connection.
  public var closeTimes: [ContinuousClock.Instant] { recordedCloseTimes.withLock { $0 } }

  private let recordsRequests: Bool

  /// Starts the server.
  ///
  /// - Parameters:
  ///   - recordsRequests: whether ``requests`` and ``closeTimes`` are recorded; pass false for very many requests.
  ///   - script: called for every request, on the thread of its connection.
  public init(recordsRequests: Bool = true, _ script: @escaping Script) throws {
    self.recordsRequests = recordsRequests
    let socket = try Loopback.listen()
    port = Loopback.port(of: socket)
    listener = socket.release()
    let listener = listener
    try JoinableThread(name: "upstream") { [weak self] in
      while true {
        let number = accept(listener, nil, nil)
        guard number >= 0 else { return }
        guard let self else {
          close(number)
          return
        }
        // Otherwise a program started by a test would inherit the connection and keep it open.
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        // Each send arrives at once, as a part of its own.
        disableNagle(of: number)
        accepted.add(1, ordering: .relaxed)
        let connection = Connection(number)
        try? JoinableThread(name: "exchange") { [weak self] in self?.serve(connection, script) }.detach()
      }
    }.detach()
  }

  deinit {
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
  }

  private final class Connection: Sendable {
    let descriptor: Descriptor
    init(_ number: CInt) { descriptor = Descriptor(owning: number) }
  }

  private func serve(_ connection: Connection, _ script: Script) {
    while let request = Self.read(connection) {
      if recordsRequests { seen.withLock { $0.append(request) } }
      let exchange = Exchange(request: request, number: connection.descriptor.number, upstream: self)
      script(exchange)
      if !exchange.keepsConnection { return }
    }
  }

  private static func read(_ connection: Connection) -> Request? {
    var bytes: [UInt8] = []
    while true {
      let text = String(decoding: bytes, as: UTF8.self)
      if let end = text.range(of: "\r\n\r\n") {
        let head = String(text[..<end.lowerBound])
        let length =
          head.lowercased().split(separator: "\r\n").first { $0.hasPrefix("content-length:") }
          .flatMap { Int($0.dropFirst(15).trimmingCharacters(in: .whitespaces)) } ?? 0
        let body = text[end.upperBound...]
        if body.utf8.count >= length { return Request(head: head, body: String(body)) }
      }
      guard let more = connection.descriptor.receive(timeout: .seconds(60)), !more.isEmpty else { return nil }
      bytes += more
    }
  }

  fileprivate func recordClose() { if recordsRequests { recordedCloseTimes.withLock { $0.append(.now) } } }

  /// One request and its response.
  public final class Exchange {
    /// The request.
    public let request: Request
    /// Whether the connection stays open for further requests when the script has returned.
    public var keepsConnection = false
    private let number: CInt
    private let upstream: ScriptedUpstream

    fileprivate init(request: Request, number: CInt, upstream: ScriptedUpstream) {
      self.request = request
      self.number = number
      self.upstream = upstream
    }

    /// The number of requests that the server has recorded, including this one.
    public var requestCount: Int { upstream.requests.count }

    /// Sends a text unmodified.
    public func send(_ text: String) { send(Array(text.utf8)) }

    /// Whether no send has failed so far.
    public private(set) var isOpen = true

    /// Sends bytes unmodified.
    public func send(_ bytes: [UInt8]) {
      var sent = 0
      while sent < bytes.count {
        let count = unsafe bytes[sent...].withUnsafeBytes {
          unsafe Foundation.send(number, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        guard count > 0 else {
          isOpen = false
          return
        }
        sent += count
      }
    }

    /// Sends the head of a response whose body ends when the connection is closed.
    public func sendHead(_ status: String = "200 OK", type: String = "text/event-stream", more: String = "") {
      send("HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nConnection: close\r\n\(more)\r\n")
    }

    /// Sends a complete response. The connection stays open for further requests.
    public func respond(_ status: String, _ body: String, more: String = "", type: String = "application/json") {
      send("HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(body.utf8.count)\r\n\(more)\r\n")
      send(body)
      keepsConnection = true
    }

    /// Sends a completion chunk with one delta.
    public func sendDelta(_ text: String, finishReason: String? = nil) {
      let encoded = String(decoding: (try? JSONEncoder().encode(text)) ?? Data(), as: UTF8.self)
      let reason = finishReason.map { "\"\($0)\"" } ?? "null"
      send(
        "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\(encoded)},\"finish_reason\":\(reason)}]}\n\n"
      )
    }

    /// Sends the terminal record of a stream.
    public func sendDone() { send("data: [DONE]\n\n") }

    /// Sends a regular response: a head, the deltas, a finish reason, `[DONE]`.
    public func stream(_ deltas: [String], gap: Duration = .zero) {
      sendHead()
      for text in deltas {
        sendDelta(text)
        pause(gap)
      }
      sendDelta("", finishReason: "stop")
      sendDone()
    }

    /// Waits for `duration`, on this connection only.
    public func pause(_ duration: Duration) {
      if duration > .zero { usleep(UInt32(duration.roundedUpMilliseconds * 1000)) }
    }

    /// Waits until the peer closes, and records the time in ``closeTimes``. Returns false if it does not within `limit`.
    @discardableResult
    public func waitUntilClosed(within limit: Duration = .seconds(20)) -> Bool {
      var request = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
      guard unsafe poll(&request, 1, CInt(limit.roundedUpMilliseconds)) == 1 else { return false }
      upstream.recordClose()
      return true
    }

    /// Makes the connection end with a TCP reset when it is closed (SO_LINGER).
    public func reset() {
      var value = linger(l_onoff: 1, l_linger: 0)
      unsafe setsockopt(number, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }
  }
}
