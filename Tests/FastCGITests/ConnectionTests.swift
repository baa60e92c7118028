import EventLoop
import Glibc
import SluiceTesting
import Testing

@testable import FastCGI

private let initialized: Void = {
  Signals.block([SIGTERM, SIGPIPE, SIGUSR1])
  ConnectionServer.initializeLibrary()
}()

/// A server that answers with the request's method, path and body, on one end of a socket pair; the test has the
/// other. `/slow` waits for its client to go, `/flood` writes without end.
private func serve<Success: Sendable>(
  limits: ServerLimits = ServerLimits(),
  _ test: @escaping @Sendable (FastCGIClient) throws -> Success
) async throws -> (result: Success, log: [String], connections: Int) {
  _ = initialized
  return try await onLoop { reactor in
    var log: [String] = []
    let left = Waiter()
    let server = ConnectionServer(reactor: reactor, limits: limits) { request, writer in
      var writer: ResponseWriter? = consume writer
      writer?.transport.onPeerClosed = {
        log.append("went")
        left.wake()
      }
      reactor.spawn {
        guard let writer = writer.take() else { return }
        switch request.path {
        case "/slow":
          // Until the peer goes; what was begun and not finished is broken off.
          let body = writer.begin(ResponseHead())
          try? await body.flush()
          await left.wait()
          return
        case "/flood":
          let body = writer.begin(ResponseHead())
          do {
            for _ in 0..<100_000 {
              body.buffer.append(contentsOf: [UInt8](repeating: 65, count: 1000))
              try await body.flush()
            }
          } catch { log.append("\(error)") }
          return
        default: break
        }
        log.append(request.path)
        var text = "\(request.method) \(request.path) \(request.body.count)"
        if request.isBodyTooLarge { text += " too large" }
        await writer.respond(Response(ResponseHead(), body: Array(text.utf8)))
      }
    }
    let (mine, number) = try socketPair()
    server.serve(Descriptor(owning: mine))
    let pool = BlockingPool()
    // The test's end blocks, so it has a thread of its own.
    let result: Result<Success, any Error> = await withCheckedContinuation { continuation in
      pool.submit {
        continuation.resume(returning: Result { try test(FastCGIClient(Descriptor(owning: number))) })
      }
    }
    for _ in 0..<100 where server.openConnections > 0 { try await reactor.sleep(for: .milliseconds(10)) }
    return (try result.get(), log, server.openConnections)
  }
}

private func get(_ path: String, keep: Bool = false) -> [UInt8] {
  FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", path)], keepsConnection: keep)
}

@Suite("A connection of the web server's", .serialized)
struct ConnectionTests {
  @Test("gets its request answered, and is closed after it unless it is to be kept")
  func single() async throws {
    let (answer, _, connections) = try await serve { client in
      client.send(get("/a"))
      let answer = client.readResponse()
      return (answer.text, answer.isEnded, client.isClosed(within: .seconds(5)))
    }
    #expect(answer.0.hasSuffix("\r\n\r\nGET /a 0"), "\(answer.0)")
    #expect(answer.1 && answer.2)
    #expect(connections == 0)
  }

  @Test("that is kept carries one request after another")
  func kept() async throws {
    let (texts, _, connections) = try await serve { client in
      (0..<5).map { index in
        client.send(get("/\(index)", keep: true))
        return client.readResponse().text.split(separator: "\r\n").last.map(String.init) ?? ""
      }
    }
    #expect(texts == (0..<5).map { "GET /\($0) 0" })
    #expect(connections == 0)
  }

  @Test("may send its request byte by byte")
  func bytewise() async throws {
    let (text, _, _) = try await serve { client in
      for byte in FastCGIClient.request(
        [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", "5")], body: Array("hello".utf8))
      {
        client.send([byte])
      }
      return client.readResponse().text
    }
    #expect(text.hasSuffix("POST /b 5"), "\(text)")
  }

  @Test("may send a body larger than any socket buffer")
  func largeBody() async throws {
    let (text, _, _) = try await serve { client in
      let body = [UInt8](repeating: 1, count: 1_000_000)
      client.send(
        FastCGIClient.request(
          [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", "\(body.count)")], body: body))
      return client.readResponse().text
    }
    #expect(text.hasSuffix("POST /b 1000000"), "\(text)")
  }

  @Test("is told of a body that is too large, which is not read into memory")
  func tooLarge() async throws {
    var limits = ServerLimits()
    limits.maximumBodyBytes = 1000
    for announced in ["2000", ""] {
      let (text, _, connections) = try await serve(limits: limits) { client in
        client.send(
          FastCGIClient.request(
            [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", announced)],
            body: [UInt8](repeating: 1, count: 2000), keepsConnection: true))
        return client.readResponse().text
      }
      #expect(text.hasSuffix("POST /b 0 too large"), "\(text)")
      #expect(connections == 0)
    }
  }

  @Test("that ends in the middle of a request gets no answer, wherever the cut is")
  func truncated() async throws {
    let bytes = FastCGIClient.request(
      [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", "5")], body: Array("hello".utf8))
    for cut in stride(from: 1, to: bytes.count, by: 7) {
      let (answer, log, connections) = try await serve { client in
        client.send(Array(bytes[..<cut]))
        client.shutdownSending()
        return client.readResponse()
      }
      #expect(answer.output.isEmpty && answer.isClosed, "cut at \(cut)")
      #expect(log.isEmpty && connections == 0, "cut at \(cut): \(log)")
    }
  }

  @Test("that announces more body than it sends gets no answer")
  func shortBody() async throws {
    let (answer, log, _) = try await serve { client in
      client.send(
        FastCGIClient.request(
          [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", "50")], body: [1, 2]))
      return client.readResponse()
    }
    #expect(answer.output.isEmpty && answer.isClosed)
    #expect(log.isEmpty)
  }

  @Test(
    "that sends junk is closed",
    arguments: ["GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\0\0\0\0", "\u{1}\u{1}\0\u{1}\0\u{2}\0\0xx"])
  func junk(text: String) async throws {
    let (isClosed, log, _) = try await serve { client in
      client.send(Array(text.utf8))
      return client.isClosed(within: .seconds(5))
    }
    #expect(isClosed && log.isEmpty)
  }

  /// Ways past a guard that looks at record headers from outside: each asks libfcgi for values, whose answer overflows
  /// a buffer of 64 bytes, or makes it wait.
  private static let traps: [[UInt8]] = {
    let names = ["FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS"]
    let question = FastCGIClient.record(
      9, id: 0, FastCGIClient.pairs((0..<30).map { (names[$0 % 3], String(repeating: "9", count: 8)) }))
    let begin: [UInt8] = [0, 1, 0, 0, 0, 0, 0, 0]
    func padded(_ type: UInt8, _ content: [UInt8], with padding: [UInt8]) -> [UInt8] {
      Array(FastCGIClient.record(type, content, padding: UInt8(padding.count)).dropLast(padding.count)) + padding
    }
    let pairs = FastCGIClient.pairs([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a")])
    let short = Array(question.prefix(255))
    let rest = FastCGIClient.record(4, pairs) + FastCGIClient.record(4) + FastCGIClient.record(5)
    // The head of a record of 65,535 bytes, of which none come.
    let long: [UInt8] = [1, 4, 0, 1, 0xFF, 0xFF, 0, 0]
    return [
      padded(1, begin, with: short) + rest,
      FastCGIClient.record(1, begin) + FastCGIClient.record(4, pairs) + padded(4, [], with: short)
        + FastCGIClient.record(5),
      FastCGIClient.record(1, begin) + FastCGIClient.record(4, pairs) + FastCGIClient.record(4)
        + padded(5, [], with: short),
      padded(1, begin, with: long) + rest,
      FastCGIClient.record(1, begin) + FastCGIClient.record(4, pairs) + padded(4, [], with: long)
        + FastCGIClient.record(5),
    ]
  }()

  @Test("may hide anything in padding: it is dropped, and the request answered at once", arguments: traps.indices)
  func padding(index: Int) async throws {
    let trap = Self.traps[index]
    let start = ContinuousClock.now
    let (text, _, _) = try await serve { client in
      client.send(trap)
      return client.readResponse().text
    }
    #expect(text.hasSuffix("GET /a 0"), "\(text)")
    #expect(ContinuousClock.now - start < .seconds(3))
  }

  @Test("that asks libfcgi for values is closed: first, behind another request's record, late, or behind a large body")
  func values() async throws {
    let question = FastCGIClient.record(
      9, id: 0, FastCGIClient.pairs((0..<200).map { _ in ("FCGI_MPXS_CONNS", "9") }))
    let begin = FastCGIClient.record(1, [0, 1, 1, 0, 0, 0, 0, 0])
    let large = FastCGIClient.request(
      [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b")], body: [UInt8](repeating: 1, count: 200_000))
    for pieces in [
      [question], [FastCGIClient.record(1, id: 7, [0, 1, 0, 0, 0, 0, 0, 0]) + begin, question],
      [begin, question], [Array(large.dropLast(8)), question],
    ] {
      let (isClosed, log, connections) = try await serve { client in
        for piece in pieces {
          client.send(piece)
          usleep(20_000)
        }
        return client.isClosed(within: .seconds(5))
      }
      #expect(isClosed && log.isEmpty && connections == 0, "\(pieces.map { $0.prefix(16) }): \(log)")
    }
  }

  @Test("that sends parameters without end is closed at their limit, and the log says why")
  func endlessParameters() async throws {
    let reports = Locked<[SystemError]>([])
    var limits = ServerLimits()
    limits.onError = { error in reports.withLock { $0.append(error) } }
    let (sent, log, connections) = try await serve(limits: limits) { client in
      client.send(FastCGIClient.record(1, [0, 1, 0, 0, 0, 0, 0, 0]))
      let record = FastCGIClient.record(4, [UInt8](repeating: 0, count: 60_000))
      return (0..<100).filter { _ in client.send(record) }.count
    }
    #expect(sent < 20 && log.isEmpty && connections == 0)
    #expect(reports.withLock { $0 }.map(\.code) == [EMSGSIZE])
  }

  @Test("may send its next request right behind the first")
  func pipelined() async throws {
    let (texts, _, _) = try await serve { client in
      client.send(get("/1", keep: true) + get("/2", keep: true) + get("/3"))
      return (0..<3).map { _ in client.readResponse().text.split(separator: "\r\n").last.map(String.init) ?? "" }
    }
    #expect(texts == ["GET /1 0", "GET /2 0", "GET /3 0"])
  }

  @Test("that never ends the body that is too large is closed after the request timeout, and keeps nobody waiting")
  func endlessBody() async throws {
    var limits = ServerLimits()
    limits.maximumBodyBytes = 1000
    limits.requestTimeout = .milliseconds(300)
    let (text, _, connections) = try await serve(limits: limits) { client in
      let request = FastCGIClient.request(
        [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b")], body: [UInt8](repeating: 1, count: 2000))
      client.send(Array(request.dropLast(8)))
      let text = client.readResponse().text
      let record = FastCGIClient.record(5, [UInt8](repeating: 1, count: 60_000))
      while client.send(record) {}
      return text
    }
    #expect(text.hasSuffix("POST /b 0 too large"), "\(text)")
    #expect(connections == 0)
  }

  @Test("holds two descriptors of the budget while it is fresh or served, and one when it is silent for long")
  func budget() async throws {
    var limits = ServerLimits()
    limits.descriptors = DescriptorBudget(units: 2)
    _ = limits.descriptors.acquire(2)
    let budget = limits.descriptors
    let (seen, _, _) = try await serve(limits: limits) { client in
      client.send(get("/a", keep: true))
      _ = client.readResponse()
      // The answer may be read before the connection waits again.
      for _ in 0..<1000 where budget.available == 0 { usleep(1000) }
      var seen = [budget.available]
      client.send(get("/slow", keep: true))
      _ = client.waitForOutput()
      seen.append(budget.available)
      return seen
    }
    #expect(seen == [1, 0])
    #expect(budget.available == 2)
  }

  @Test("that never completes its request is closed after the request timeout")
  func halfRequest() async throws {
    var limits = ServerLimits()
    limits.requestTimeout = .milliseconds(100)
    for bytes in [[], Array(get("/a").dropLast(5))] {
      let (isClosed, log, _) = try await serve(limits: limits) { client in
        client.send(bytes)
        return client.isClosed(within: .seconds(5))
      }
      #expect(isClosed && log.isEmpty)
    }
  }

  @Test("whose peer goes while it is served is noticed at once")
  func peerGone() async throws {
    let (_, log, connections) = try await serve { client in
      client.send(get("/slow"))
      return client.waitForOutput()
    }
    #expect(log.first == "went", "\(log)")
    #expect(connections == 0)
  }

  @Test("that sends ABORT_REQUEST is a peer that has gone")
  func abortRecord() async throws {
    let (isClosed, log, _) = try await serve { client in
      client.send(get("/slow"))
      let hasBegun = client.waitForOutput()
      client.send(FastCGIClient.record(2))
      return hasBegun && client.isClosed(within: .seconds(5))
    }
    #expect(isClosed && log == ["went"], "\(log)")
  }

  @Test("that sends ABORT_REQUEST half with its request is a peer that has gone too")
  func splitAbort() async throws {
    let abort = FastCGIClient.record(2)
    let (isClosed, log, _) = try await serve { client in
      client.send(get("/slow") + abort.prefix(1))
      let hasBegun = client.waitForOutput()
      client.send(Array(abort.dropFirst(1)))
      return hasBegun && client.isClosed(within: .seconds(5))
    }
    #expect(isClosed && log == ["went"], "\(log)")
  }

  @Test("whose peer reads nothing pauses its writer, which is given up after the write timeout")
  func stuckReader() async throws {
    var limits = ServerLimits()
    limits.writeTimeout = .milliseconds(200)
    let (_, log, connections) = try await serve(limits: limits) { client in
      client.send(get("/flood"))
      // Reads nothing until the server has given up.
      return client.waitForHangup()
    }
    #expect(log.first == "timedOut", "\(log)")
    #expect(connections == 0)
  }
}
