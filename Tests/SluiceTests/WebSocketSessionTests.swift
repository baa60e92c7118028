import EventLoop
import Glibc
import JSON
import SluiceTesting
import Testing

@testable import Sluice

/// A client of a WebSocket whose server runs on the same loop, with a clock that the test advances.
private final class Fixture {
  let services: Services
  private let server: WebSocketServer
  private let reactor: Reactor
  private var client: Descriptor?
  private var received: [UInt8] = []

  init(_ services: Services, on reactor: Reactor) throws {
    self.services = services
    self.reactor = reactor
    let dispatcher = RequestDispatcher(services, routes: .builtIn(services), on: reactor)
    server = WebSocketServer(services, dispatcher, on: reactor)
    var pair: [CInt] = [0, 0]
    let result = unsafe socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair)
    try #require(result == 0)
    client = Descriptor(owning: pair[1])
    server.serve(Descriptor(owning: pair[0]))
  }

  /// Sends bytes unmodified.
  func send(_ bytes: [UInt8]) {
    let isSent = client?.sendAll(bytes) ?? false
    #expect(isSent)
  }

  /// Sends a text message, masked with zeros.
  func send(_ text: String) { send([0x81, 0x80 | UInt8(text.utf8.count), 0, 0, 0, 0] + text.utf8) }

  func disconnect() { client = nil }

  /// Lets the server handle everything that is pending.
  func settle() async {
    for _ in 0..<100 { await reactor.nextTurn() }
  }

  func sendHandshake() {
    send(
      Array(
        ("GET /ws/api/chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
          + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").utf8))
  }

  func open() async throws {
    sendHandshake()
    let response = try await read { $0.firstRange(of: Array("\r\n\r\n".utf8))?.upperBound }
    #expect(String(decoding: response, as: UTF8.self).hasPrefix("HTTP/1.1 101 "))
  }

  /// Returns the next frame of less than 64 KiB; nil if the server has closed the connection.
  func frame() async throws -> [UInt8]? {
    let bytes = try await read { bytes in
      guard bytes.count >= 4 || (bytes.count >= 2 && bytes[1] < 126) else { return nil }
      let count = bytes[1] < 126 ? 2 + Int(bytes[1]) : 4 + Int(bytes[2]) << 8 + Int(bytes[3])
      return bytes.count >= count ? count : nil
    }
    return bytes.isEmpty ? nil : bytes
  }

  /// Returns the JSON of a text frame.
  static func json(_ frame: [UInt8]) throws -> JSON {
    try JSON(parsing: Array(frame.dropFirst(frame[1] < 126 ? 2 : 4)))
  }

  /// Returns the JSON of the next text frame.
  func message() async throws -> JSON {
    let frame = try #require(try await frame())
    return try Self.json(frame)
  }

  /// Returns the first bytes received, as many as `end` says; none if the connection is closed.
  private func read(_ end: ([UInt8]) -> Int?) async throws -> [UInt8] {
    let limit = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < limit {
      if let count = end(received) {
        defer { received.removeFirst(count) }
        return Array(received.prefix(count))
      }
      var buffer = [UInt8](repeating: 0, count: 4096)
      guard let number = client?.number else { return [] }
      let count = unsafe recv(number, &buffer, buffer.count, CInt(MSG_DONTWAIT))
      if count == 0 { return [] }
      if count > 0 { received += buffer.prefix(count) } else { await reactor.nextTurn() }
    }
    throw Failure(.internalError, "nothing was received but \(received)")
  }
}

@Suite("WebSocket sessions")
struct WebSocketSessionTests {
  private func test(
    upstream: ScriptedUpstream? = nil, opens: Bool = true,
    _ body: @escaping @Sendable (Fixture, SlowClock) async throws -> Void
  ) async throws {
    let clock = SlowClock()
    let directory = TemporaryDirectory()
    try await onLoop(clock: clock.loopClock) { reactor in
      let services = try Services(upstream: upstream?.baseURL ?? "http://127.0.0.1:1/v1", in: directory)
      services.webSockets.setServed()
      let fixture = try Fixture(services, on: reactor)
      if opens { try await fixture.open() }
      try await body(fixture, clock)
      for _ in 0..<1000 where services.webSockets.count > 0 || reactor.pendingTimers > 0 { await reactor.nextTurn() }
      #expect(services.webSockets.count == 0 && services.webSocketLimiter.streams == 0)
      #expect(reactor.pendingTimers == 0)
    }
  }

  @Test("A connection without a stream is closed with 1000 after five minutes")
  func idle() async throws {
    try await test { (fixture, clock) async throws in
      clock.advance(by: .seconds(14))
      clock.advance(by: .seconds(286))
      #expect(try await fixture.frame() == [0x89, 0], "a ping")
      #expect(try await fixture.frame() == [0x88, 2, 0x03, 0xE8])
      clock.advance(by: .seconds(2))
      #expect(try await fixture.frame() == nil)
    }
  }

  @Test(
    "A client that leaves in mid-stream frees its connection, and no timer is left",
    arguments: [true, false])
  func leaves(closesCleanly: Bool) async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      exchange.sendDelta("x")
      exchange.waitUntilClosed()
    }
    try await test(upstream: upstream) { (fixture, clock) async throws in
      fixture.send(#"{"type":"start","id":"a","body":{"message":"x"}}"#)
      #expect(try await fixture.message()["event"] == "open")
      if closesCleanly {
        fixture.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])
        while try await fixture.frame()?.first == 0x81 {}
      }
      fixture.disconnect()
      let isClosed = await eventually(within: .seconds(60)) { upstream.closeTimes.count == 1 }
      #expect(isClosed)
      await fixture.settle()
      clock.advance(by: .seconds(301))
      await fixture.settle()
    }
  }

  @Test("A client that leaves before the handshake is accepted frees its connection, and no timer is left")
  func leavesDuringHandshake() async throws {
    try await test(opens: false) { (fixture, clock) async throws in
      fixture.sendHandshake()
      fixture.disconnect()
      for time in [Duration.seconds(16), .seconds(16), .seconds(301)] {
        await fixture.settle()
        clock.advance(by: time)
      }
      await fixture.settle()
    }
  }

  @Test("A client is pinged at every heartbeat, and is gone if it has not responded by the next one")
  func pings() async throws {
    try await test { (fixture, clock) async throws in
      for _ in 0..<3 {
        clock.advance(by: .seconds(15))
        #expect(try await fixture.frame() == [0x89, 0])
        fixture.send([0x8A, 0x80, 0, 0, 0, 0])
        // Read before the next heartbeat.
        fixture.send("?")
        #expect(try await fixture.message()["status"] == 400)
      }
      clock.advance(by: .seconds(15))
      #expect(try await fixture.frame() == [0x89, 0])
      clock.advance(by: .seconds(15))
      #expect(try await fixture.frame() == nil)
    }
  }

  @Test("A stream is opened after a heartbeat interval if the model is silent; a refusal comes as its record then")
  func silentModel() async throws {
    let released = Gate()
    let upstream = try ScriptedUpstream { exchange in
      released.pass()
      exchange.respond("500 Internal Server Error", "{}")
    }
    try await test(upstream: upstream) { (fixture, clock) async throws in
      fixture.send(#"{"type":"start","id":"a","body":{"message":"x"}}"#)
      let isAsked = await eventually(within: .seconds(60)) { upstream.requests.count == 1 }
      #expect(isAsked)
      clock.advance(by: .seconds(15))
      var messages: [JSON] = []
      while messages.isEmpty {
        guard let frame = try await fixture.frame() else { break }
        if frame[0] == 0x81 { messages.append(try Fixture.json(frame)) }
      }
      #expect(messages.first?["event"] == "open" && messages.first?["id"] == "a", "\(messages)")
      fixture.send([0x8A, 0x80, 0, 0, 0, 0])
      released.open()
      let error = try await fixture.message()
      #expect(error["event"] == "error" && error["status"] == nil, "\(error)")
      #expect(error["data"]?["code"] == "upstream_error", "\(error)")
      fixture.send([0x88, 0x80, 0, 0, 0, 0])
      #expect(try await fixture.frame() == [0x88, 0])
      clock.advance(by: .seconds(2))
    }
  }
}
