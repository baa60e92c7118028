import EventLoop
import Glibc
import SluiceTesting
import Testing

@testable import FastCGI

private let initialized: Void = {
  Signals.block([SIGTERM, SIGPIPE, SIGUSR1])
  ConnectionServer.initializeLibrary()
}()

/// Runs `test` as the client of a server on a socket pair, and returns its result, the server's log and the number of
/// connections that are still open.
///
/// The server responds with the request's method, path and body size. `/slow` waits until the client disconnects;
/// `/flood` writes until a write fails, 100 MB at most.
///
/// - Parameters:
///   - received: bytes that another process has read from the connection.
///   - early: bytes that the client has sent before the server knows the connection.
private func serve<Success: Sendable>(
  limits: ServerLimits = ServerLimits(), received: [UInt8] = [], early: [UInt8] = [],
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
          // Returns when the peer disconnects. Dropping the unfinished body aborts the response.
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
        if let issue = request.bodyIssue { text += " \(issue)" }
        await writer.respond(Response(ResponseHead(), body: Array(text.utf8)))
      }
    }
    let (mine, number) = try socketPair()
    _ = unsafe send(number, early, early.count, 0)
    server.serve(Descriptor(owning: mine), received: received)
    let pool = BlockingPool()
    // The client blocks, so it runs on a thread of its own.
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

@Suite("Web server connection", .serialized)
struct ConnectionTests {
  @Test("A request without FCGI_KEEP_CONN gets a response, and its connection is closed")
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

  @Test("A connection with FCGI_KEEP_CONN carries one request after another")
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

  @Test("A request can arrive byte by byte")
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

  @Test("A request body can be larger than any socket buffer")
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

  @Test("A body over the limit is not read into memory, and its request is marked as too large")
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
      #expect(text.hasSuffix("POST /b 0 tooLarge"), "\(text)")
      #expect(connections == 0)
    }
  }

  @Test("A request that is cut off anywhere gets no response")
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

  @Test(
    "A body is cut to its announced length, all of it if none is announced, and marked if it is shorter",
    arguments: [
      ("2", "POST /b 2"), ("", "POST /b 3"), ("-1", "POST /b 3"), ("x", "POST /b 3"), ("3", "POST /b 3"),
      ("0", "POST /b 0"),
      ("50", "POST /b 0 incomplete(received: 3, announced: 50)"),
    ])
  func bodyLength(announced: String, response: String) async throws {
    let (texts, _, _) = try await serve { client in
      client.send(
        FastCGIClient.request(
          [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", announced)], body: [1, 2, 3],
          keepsConnection: true))
      let first = client.readResponse().text
      // The connection can be used for the next request.
      client.send(get("/next"))
      return [first, client.readResponse().text]
    }
    #expect(texts[0].hasSuffix(response), "\(texts)")
    #expect(texts[1].hasSuffix("GET /next 0"), "\(texts)")
  }

  @Test("What follows a request waits while that one is served, also if it was received together with it")
  func following() async throws {
    let log = try await serve(
      received: get("/slow", keep: true) + get("/b"), early: get("/c")
    ) { client in
      #expect(client.readResponse(until: "Status: 200").text.contains("200"))
    }.log
    #expect(log == ["went"])
  }

  @Test(
    "A connection that sends malformed data is closed",
    arguments: ["GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\0\0\0\0", "\u{1}\u{1}\0\u{1}\0\u{2}\0\0xx"])
  func malformed(text: String) async throws {
    let (isClosed, log, _) = try await serve { client in
      client.send(Array(text.utf8))
      return client.isClosed(within: .seconds(5))
    }
    #expect(isClosed && log.isEmpty)
  }

  /// Requests that would pass a check of record headers outside libfcgi. Their padding hides either an FCGI_GET_VALUES
  /// record, to which libfcgi's response overflows a buffer of 64 bytes, or a header that makes libfcgi wait for more.
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
    // The header of a record of 65,535 bytes, none of which are sent.
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

  @Test("Padding is dropped whatever it contains, and the response is sent immediately", arguments: traps.indices)
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

  @Test("FCGI_GET_VALUES is answered: a connection carries one request at a time", arguments: [1, 3, 100])
  func multiplexing(size: Int) async throws {
    let question = FastCGIClient.record(
      9, id: 0, FastCGIClient.pairs([("FCGI_MAX_REQS", ""), ("FCGI_MPXS_CONNS", "")]), padding: 3)
    let other = FastCGIClient.record(9, id: 0, FastCGIClient.pairs([("FCGI_MAX_REQS", "")]))
    let bytes = question + other + get("/a")
    let (received, _, _) = try await serve { client in
      for start in stride(from: 0, to: bytes.count, by: size) {
        client.send(Array(bytes[start..<min(start + size, bytes.count)]))
      }
      return client.readAll()
    }
    let result = FastCGIClient.record(10, id: 0, FastCGIClient.pairs([("FCGI_MPXS_CONNS", "0")]))
    let empty = FastCGIClient.record(10, id: 0)
    #expect(received.starts(with: result + empty), "\(received)")
    #expect(String(decoding: received, as: UTF8.self).contains("GET /a 0"))
  }

  @Test("A connection is closed by an FCGI_GET_VALUES that is too long, or that is sent within a request")
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

  @Test("Parameters over the limit close the connection and report an error")
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

  @Test("Requests can be pipelined on one connection")
  func pipelined() async throws {
    let (texts, _, _) = try await serve { client in
      client.send(get("/1", keep: true) + get("/2", keep: true) + get("/3"))
      return (0..<3).map { _ in client.readResponse().text.split(separator: "\r\n").last.map(String.init) ?? "" }
    }
    #expect(texts == ["GET /1 0", "GET /2 0", "GET /3 0"])
  }

  @Test("A request with an endless body gets a response, and its connection is closed after the request timeout")
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
    #expect(text.hasSuffix("POST /b 0 tooLarge"), "\(text)")
    #expect(connections == 0)
  }

  @Test("A connection holds two descriptors of the budget while it is new or active, and one while it is idle")
  func budget() async throws {
    var limits = ServerLimits()
    limits.descriptors = DescriptorBudget(units: 2)
    _ = limits.descriptors.acquire(2)
    let budget = limits.descriptors
    let (seen, _, _) = try await serve(limits: limits) { client in
      client.send(get("/a", keep: true))
      _ = client.readResponse()
      // The client can read the response before the connection becomes idle and releases its second descriptor.
      for _ in 0..<1000 where budget.available == 0 { usleep(1000) }
      var seen = [budget.available]
      client.send(get("/slow", keep: true))
      _ = client.waitUntilReadable()
      seen.append(budget.available)
      return seen
    }
    #expect(seen == [1, 0])
    #expect(budget.available == 2)
  }

  @Test("A connection that never completes its request is closed after the request timeout")
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

  @Test("A peer that disconnects during a request is detected immediately")
  func peerClosed() async throws {
    let (_, log, connections) = try await serve { client in
      client.send(get("/slow"))
      return client.waitUntilReadable()
    }
    #expect(log.first == "went", "\(log)")
    #expect(connections == 0)
  }

  @Test("An FCGI_ABORT_REQUEST record counts as a disconnect")
  func abortRecord() async throws {
    let (isClosed, log, _) = try await serve { client in
      client.send(get("/slow"))
      let hasBegun = client.waitUntilReadable()
      client.send(FastCGIClient.record(2))
      return hasBegun && client.isClosed(within: .seconds(5))
    }
    #expect(isClosed && log == ["went"], "\(log)")
  }

  @Test("An FCGI_ABORT_REQUEST record that arrives partly with the request counts as a disconnect")
  func splitAbort() async throws {
    let abort = FastCGIClient.record(2)
    let (isClosed, log, _) = try await serve { client in
      client.send(get("/slow") + abort.prefix(1))
      let hasBegun = client.waitUntilReadable()
      client.send(Array(abort.dropFirst(1)))
      return hasBegun && client.isClosed(within: .seconds(5))
    }
    #expect(isClosed && log == ["went"], "\(log)")
  }

  @Test("A peer that reads nothing pauses the writer, and is disconnected after the write timeout")
  func stuckReader() async throws {
    var limits = ServerLimits()
    limits.writeTimeout = .milliseconds(200)
    let (_, log, connections) = try await serve(limits: limits) { client in
      client.send(get("/flood"))
      // The client reads nothing until the server has closed the connection.
      return client.waitUntilHangup()
    }
    #expect(log.first == "timedOut", "\(log)")
    #expect(connections == 0)
  }
}
