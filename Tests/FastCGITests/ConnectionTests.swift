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
    let server = ConnectionServer(reactor: reactor, limits: limits, pool: BlockingPool()) { request, writer in
      var writer: ResponseWriter? = consume writer
      writer?.transport.peerWent = {
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
    server.take(Descriptor(owning: mine))
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
      let answer = client.answer()
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
        return client.answer().text.split(separator: "\r\n").last.map(String.init) ?? ""
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
      return client.answer().text
    }
    #expect(text.hasSuffix("POST /b 5"), "\(text)")
  }

  @Test("may send a body larger than any socket buffer, which a thread reads")
  func largeBody() async throws {
    let (text, _, _) = try await serve { client in
      let body = [UInt8](repeating: 1, count: 1_000_000)
      client.send(
        FastCGIClient.request(
          [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/b"), ("CONTENT_LENGTH", "\(body.count)")], body: body))
      return client.answer().text
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
        return client.answer().text
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
        return client.answer()
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
      return client.answer()
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

  @Test("whose peer reads nothing pauses its writer, which is given up after the write timeout")
  func stuckReader() async throws {
    var limits = ServerLimits()
    limits.writeTimeout = .milliseconds(200)
    let (_, log, connections) = try await serve(limits: limits) { client in
      client.send(get("/flood"))
      // Reads nothing until the server has given up.
      return client.waitForHangup()
    }
    #expect(log.first == "peerStuck", "\(log)")
    #expect(connections == 0)
  }
}
