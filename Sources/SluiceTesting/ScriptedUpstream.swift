import EventLoop
import FastCGI
import Foundation
import Synchronization

/// An HTTP server on loopback that does byte by byte what a script says, well or badly. A thread serves each
/// connection, so a script is straight-line code that may block.
public final class ScriptedUpstream: Sendable {
  /// A request as it came.
  public struct Request: Sendable {
    /// The request line and the header fields, as they came.
    public let head: String
    /// The body, as text.
    public let body: String
  }

  /// Answers one request. It runs on a thread of its connection and may block.
  public typealias Script = @Sendable (Exchange) -> Void

  /// The port on 127.0.0.1, of the system's choice.
  public let port: UInt16
  private let seen = Locked<[Request]>([])
  private let accepted = Atomic(0)
  private let closedByPeer = Locked<[ContinuousClock.Instant]>([])
  private let listener: Int32

  /// For `SLUICE_UPSTREAM_URL`.
  public var baseURL: String { "http://127.0.0.1:\(port)/v1" }
  /// The requests so far.
  public var requests: [Request] { seen.withLock { $0 } }
  /// How many connections were accepted.
  public var connections: Int { accepted.load(ordering: .relaxed) }
  /// When peers have closed connections that a script was waiting on with ``Exchange/waitForClose(within:)``.
  public var closings: [ContinuousClock.Instant] { closedByPeer.withLock { $0 } }

  private let keepsRequests: Bool

  /// - Parameters:
  ///   - keepsRequests: whether ``requests`` and ``closings`` are wanted; not where there are very many.
  ///   - script: called for every request, on its connection's thread.
  public init(keepsRequests: Bool = true, _ script: @escaping Script) throws {
    self.keepsRequests = keepsRequests
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
        // A program that a test starts would keep the connection open.
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
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
      if keepsRequests { seen.withLock { $0.append(request) } }
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

  fileprivate func noteClosing() { if keepsRequests { closedByPeer.withLock { $0.append(.now) } } }

  /// One request being answered.
  public final class Exchange {
    /// What is answered.
    public let request: Request
    fileprivate var keepsConnection = false
    private let number: CInt
    private let upstream: ScriptedUpstream

    fileprivate init(request: Request, number: CInt, upstream: ScriptedUpstream) {
      self.request = request
      self.number = number
      self.upstream = upstream
    }

    /// How many requests there were, this one included.
    public var upstreamRequests: Int { upstream.requests.count }

    /// Sends bytes as they are.
    public func send(_ text: String) { send(Array(text.utf8)) }

    /// Whether the peer has taken everything so far, or may still.
    public private(set) var isOpen = true

    /// Sends bytes as they are.
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

    /// The head of an answer, ended by closing.
    public func head(_ status: String = "200 OK", type: String = "text/event-stream", more: String = "") {
      send("HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nConnection: close\r\n\(more)\r\n")
    }

    /// A whole answer of some status.
    public func respond(_ status: String, _ body: String, more: String = "", type: String = "application/json") {
      send("HTTP/1.1 \(status)\r\nContent-Type: \(type)\r\nContent-Length: \(body.utf8.count)\r\n\(more)\r\n")
      send(body)
      keepsConnection = true
    }

    /// A chunk with one piece of text.
    public func sendDelta(_ text: String, finish: String? = nil) {
      let encoded = String(decoding: (try? JSONEncoder().encode(text)) ?? Data(), as: UTF8.self)
      let reason = finish.map { "\"\($0)\"" } ?? "null"
      send(
        "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\(encoded)},\"finish_reason\":\(reason)}]}\n\n"
      )
    }

    /// The record that ends a stream.
    public func sendDone() { send("data: [DONE]\n\n") }

    /// The usual answer: a head, the deltas, a finish reason, `[DONE]`.
    public func stream(_ deltas: [String], gap: Duration = .zero) {
      head()
      for text in deltas {
        sendDelta(text)
        pause(gap)
      }
      sendDelta("", finish: "stop")
      sendDone()
    }

    /// Lets time pass on this connection only.
    public func pause(_ duration: Duration) {
      if duration > .zero { usleep(UInt32(duration.roundedUpMilliseconds * 1000)) }
    }

    /// Waits until the peer closes, and notes when it did. False when it did not.
    @discardableResult
    public func waitForClose(within limit: Duration = .seconds(20)) -> Bool {
      var request = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
      guard unsafe poll(&request, 1, CInt(limit.roundedUpMilliseconds)) == 1 else { return false }
      upstream.noteClosing()
      return true
    }

    /// Ends the connection with a TCP reset.
    public func reset() {
      var value = linger(l_onoff: 1, l_linger: 0)
      unsafe setsockopt(number, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }
  }
}
