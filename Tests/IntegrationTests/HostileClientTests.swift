import EventLoop
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("Hostile client")
  struct HostileClientTests {
    private static let calm = ["SLUICE_ECHO_GAP": "0", "SLUICE_STREAMS_PER_USER": "0", "SLUICE_MESSAGES_PER_HOUR": "0"]

    @Test("Malformed FastCGI records from a thousand seeds leak nothing and do not disturb other clients")
    func records() async throws {
      let sluice = try await Sluice(Self.calm)
      #expect(try sluice.chat("first").readResponse().text.contains("event: done"))
      let open = sluice.descriptors
      let body = Array(#"{"message":"a b"}"#.utf8)
      let complete =
        FastCGIClient.request(
          [
            ("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/api/chat?dialect=ui"), ("CONTENT_TYPE", "application/json"),
            ("CONTENT_LENGTH", "\(body.count)"), ("HTTP_X", String(repeating: "x", count: 200)),
            ("REMOTE_USER", "root"),
          ], body: body, keepsConnection: true) + FastCGIClient.record(2)
        + FastCGIClient.record(9, id: 0, [1, 1, 65, 66])
      for seed in UInt64(0)..<1000 {
        var random = SeededGenerator(seed: seed)
        let client = try FastCGIClient(path: sluice.socket)
        for chunk in complete.mutated(&random).splitIntoChunks(&random) where !client.send(chunk) { break }
        if Bool.random(using: &random) { client.shutdownSending() }
        if seed % 10 == 0 { _ = client.readResponse(timeout: .milliseconds(50)) }
        if seed % 100 == 99 {
          try #require(try sluice.chat("between").readResponse().text.contains("event: done"), "seed \(seed)")
        }
      }
      #expect(await eventually(within: .seconds(20)) { sluice.descriptors <= open + 1 })
      #expect(
        sluice.program.isRunning && !FileManager.default.fileExists(atPath: sluice.directory + "/state/users/root"))
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("Ten thousand silent connections do not delay other clients, and time out")
    func silence() async throws {
      var limit = rlimit()
      unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
      limit.rlim_cur = limit.rlim_max
      unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
      let sluice = try await Sluice(Self.calm)
      let open = sluice.descriptors
      var silent: [FastCGIClient] = []
      // The machine's descriptor limit can require fewer.
      let count = min(10_000, Int(clamping: limit.rlim_max) - 1000)
      for _ in 0..<count { silent.append(try FastCGIClient(path: sluice.socket)) }
      #expect(try sluice.chat("hello").readResponse().text.contains("event: done"))
      #expect(sluice.memory < 100_000, "\(sluice.memory) KiB")
      #expect(await eventually(within: .seconds(30)) { sluice.descriptors <= open + 1 })
      silent = []
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("The server survives more connections than it has descriptors, and logs the shortage")
    func exhaustion() async throws {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      let program = try Program(
        "/bin/sh", ["-c", "ulimit -n 40; exec \"$0\"", releaseDirectory + "/sluice"],
        environment: Self.calm.merging([
          "SLUICE_AUTH": "none", "SLUICE_LISTEN": "unix:\(directory)/s", "SLUICE_STATE": directory + "/state",
        ]) { $1 })
      #expect(await eventually { !program.log("ready").isEmpty })
      var clients = try (0..<200).map { _ in try FastCGIClient(path: directory + "/s") }
      #expect(await eventually { !program.log("accept failed").isEmpty })
      #expect(program.log("accept failed").count < 50)
      #expect(clients.count == 200)
      clients = []
      let client = try FastCGIClient(path: directory + "/s")
      client.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/healthz")]))
      #expect(client.readResponse().text.contains("\"ok\""))
      program.signal(SIGTERM)
      #expect(await program.exitCode() == 0)
    }

    @Test("A user over a limit is refused before the body is parsed, and an invalid request does not count")
    func costs() async throws {
      let sluice = try await Sluice([
        "SLUICE_ECHO_GAP": "5ms", "SLUICE_MESSAGES_PER_HOUR": "2", "SLUICE_STREAMS_PER_USER": "2",
      ])
      func post(_ path: String, _ body: String) throws -> FastCGIClient {
        let client = try FastCGIClient(path: sluice.socket)
        client.send(
          FastCGIClient.request(
            [
              ("REQUEST_METHOD", "POST"), ("REQUEST_URI", path), ("CONTENT_TYPE", "application/json"),
              ("CONTENT_LENGTH", "\(body.utf8.count)"),
            ], body: Array(body.utf8)))
        return client
      }
      let members = (0..<90_000).map { "\"m\($0)\":1" }.joined(separator: ",")
      let large = "{\(members),\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}"
      let running = try sluice.chat(String(repeating: "word ", count: 400))
      #expect(await eventually { sluice.program.log("stream started").count == 1 })
      // An invalid request consumes neither a message nor a slot, however often it is repeated.
      for _ in 0..<5 {
        #expect(try post("/api/chat", "{").readResponse().text.hasPrefix("Status: 400 "))
        #expect(try post("/api/reports", "{}").readResponse().text.hasPrefix("Status: 400 "))
        #expect(try post("/v1/chat/completions", "{\(members)}").readResponse().text.hasPrefix("Status: 400 "))
      }
      #expect(try post("/v1/chat/completions", large).readResponse().text.hasPrefix("Status: 200 "))
      // The message limit is reached, so no body is parsed any more, valid or not.
      for body in [large, "{", "{}"] {
        #expect(
          try post("/v1/chat/completions", body).readResponse().text.hasPrefix("Status: 429 "), "\(body.prefix(9))")
        #expect(try post("/api/reports", body).readResponse().text.hasPrefix("Status: 429 "), "\(body.prefix(9))")
      }
      #expect(running.readResponse(timeout: .seconds(20)).text.contains("event: done"))
      let path = String(repeating: "/", count: 8000)
      let client = try FastCGIClient(path: sluice.socket)
      client.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", path)]))
      #expect(client.readResponse().text.hasPrefix("Status: 404 "))
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("Large histories and request bodies are not retained in memory during generation")
    func memory() async throws {
      let upstream = try ScriptedUpstream(recordsRequests: false) { exchange in
        exchange.sendHead()
        exchange.sendDelta("a")
        exchange.waitUntilClosed(within: .seconds(60))
      }
      let sluice = try await Sluice(Self.calm.merging(["SLUICE_UPSTREAM_URL": upstream.baseURL]) { $1 })
      let sessions = sluice.directory + "/state/users/anonymous/sessions"
      try FileManager.default.createDirectory(atPath: sessions, withIntermediateDirectories: true)
      let words = String(repeating: "word ", count: 2000)
      let turns = (0..<25).map {
        "{\"v\":1,\"id\":\"\($0)\",\"at\":\"t\",\"user\":{\"content\":\"\(words)\"},\"assistant\":{\"content\":\"\(words)\"}}\n"
      }
      for index in 0..<100 {
        try turns.joined().write(toFile: "\(sessions)/s\(index).jsonl", atomically: true, encoding: .utf8)
      }
      let message = "{\"role\":\"user\",\"content\":\"\(String(repeating: "x", count: 60_000))\"}"
      let body = Array(
        "{\"stream\":true,\"messages\":[\(Array(repeating: message, count: 9).joined(separator: ","))]}".utf8)
      var clients: [FastCGIClient] = []
      func open(_ index: Int) throws {
        if index % 2 == 0 {
          clients.append(try sluice.chat("go on", session: "s\(index)"))
        } else {
          let client = try FastCGIClient(path: sluice.socket)
          client.send(
            FastCGIClient.request(
              [
                ("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/v1/chat/completions"),
                ("CONTENT_TYPE", "application/json"), ("CONTENT_LENGTH", "\(body.count)"),
              ], body: body))
          clients.append(client)
        }
      }
      for index in 0..<10 { try open(index) }
      for client in clients { #expect(client.waitUntilReadable()) }
      let before = sluice.memory
      for index in 10..<110 { try open(index % 100) }
      for client in clients { #expect(client.waitUntilReadable()) }
      #expect(
        await eventually { (sluice.memory - before) / 100 < 200 }, "\((sluice.memory - before) / 100) KiB a stream")
      clients = []
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test(
      "With more streams than descriptors, each stream completes and is stored, or gets 503",
      arguments: [(64, 60, ""), (256, 150, "keyed"), (64, 20, "held open")])
    func scarcity(limit: Int, count: Int, way: String) async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.stream(["a ", "b ", "c"], gap: .milliseconds(100))
        // The upstream keeps the connection open after the last record.
        if way == "held open" { exchange.waitUntilClosed(within: .seconds(10)) }
      }
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      let program = try Program(
        "/bin/sh", ["-c", "ulimit -n \(limit); exec \"$0\"", releaseDirectory + "/sluice"],
        environment: Self.calm.merging([
          "SLUICE_AUTH": "none", "SLUICE_LISTEN": "unix:\(directory)/s", "SLUICE_STATE": directory + "/state",
          "SLUICE_UPSTREAM_URL": upstream.baseURL,
        ]) { $1 })
      #expect(await eventually { !program.log("ready").isEmpty })
      var texts: [String] = []
      for round in 0..<(way == "held open" ? 5 : 1) {
        let clients = try (0..<count).map { index in
          try Sluice.chat("x", key: way == "keyed" ? "\(round)-\(index)" : nil, at: directory + "/s")
        }
        texts += clients.map { $0.readResponse(timeout: .seconds(20)).text }
      }
      let (done, refused) = (texts.filter { $0.contains("event: done") }, texts.filter { $0.contains("overloaded") })
      #expect(
        done.count + refused.count == texts.count && done.count >= count / 3,
        "\(texts.filter { !$0.contains("event: done") })")
      #expect(refused.allSatisfy { $0.hasPrefix("Status: 503 ") && $0.contains("Retry-After: ") }, "\(refused)")
      let stored = FileManager.default.enumerator(atPath: directory + "/state")?.compactMap { $0 as? String } ?? []
      #expect(stored.count { $0.hasSuffix(".jsonl") } == done.count)
      #expect(program.log("accept failed").count < 40)
      // A later client is served as usual.
      #expect(try Sluice.chat("y", at: directory + "/s").readResponse().text.contains("event: done"))
      program.signal(SIGTERM)
      #expect(await program.exitCode() == 0)
    }

    @Test("Idle persistent connections that hold all descriptors are closed when a new client needs one")
    func keptConnections() async throws {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      let program = try Program(
        "/bin/sh", ["-c", "ulimit -n 64; exec \"$0\"", releaseDirectory + "/sluice"],
        environment: Self.calm.merging([
          "SLUICE_AUTH": "none", "SLUICE_LISTEN": "unix:\(directory)/s", "SLUICE_STATE": directory + "/state",
        ]) { $1 })
      #expect(await eventually { !program.log("ready").isEmpty })
      let health = FastCGIClient.request(
        [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/healthz")], keepsConnection: true)
      var kept: [FastCGIClient] = []
      for _ in 0..<60 {
        let client = try FastCGIClient(path: directory + "/s")
        client.send(health)
        #expect(client.readResponse().text.contains("\"ok\""))
        kept.append(client)
      }
      for _ in 0..<5 { #expect(try Sluice.chat("x", at: directory + "/s").readResponse().text.contains("event: done")) }
      withExtendedLifetime(kept) {}
      program.signal(SIGTERM)
      #expect(await program.exitCode() == 0)
    }

    @Test("A client that does not read while the model floods costs little memory and is closed at the write timeout")
    func flood() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        let text = String(repeating: "flood ", count: 500)
        for _ in 0..<30_000 where exchange.isOpen { exchange.sendDelta(text) }
      }
      let sluice = try await Sluice(
        Self.calm.merging([
          "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_WRITE_TIMEOUT": "3s", "SLUICE_MAX_ANSWER": "100M",
        ]) { $1 })
      let before = sluice.memory
      let clients = try (0..<5).map { _ in try sluice.chat("go") }
      #expect(await eventually { sluice.program.log("stream started").count == 5 })
      #expect(await eventually(within: .seconds(20)) { sluice.program.log("stream ended").count == 5 })
      #expect(sluice.memory < before + 30_000, "\(before) KiB before, \(sluice.memory) after")
      #expect(sluice.program.log("stream ended").allSatisfy { $0["outcome"] as? String == "disconnected" })
      withExtendedLifetime(clients) {}
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("Oversized names, header injection and paths as ids are refused with a clear error")
    func tricks() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0"])
      let huge = String(repeating: "a", count: 7000)
      for path in [
        "/api/sessions/\(huge)", "/api/stream/ai-block/\(huge)?input=x", "/api/streams/\(huge)", "/api/\(huge)",
      ] {
        let output = try await servers.get(path)
        #expect([400, 404, 405].contains(output.status ?? 0), "\(path.prefix(30)): \(output.prefix(300))")
      }
      for id in ["../../../etc/passwd", "..", ".", "a/b", "a\\u0000b", "é", "a b", huge] {
        let output = try await servers.post("/api/chat", "{\"message\":\"x\",\"sessionId\":\"\(id)\"}")
        #expect(output.status == 400 && output.contains("sessionId"), "\(id.prefix(20)): \(output)")
      }
      // A value that is copied into the response head cannot contain a line break.
      let output = try await servers.get(
        "/chat/stream?message=x&session_id=a%0d%0aSet-Cookie:%20x&dialect=b%0d%0aX:%20y")
      #expect(
        output.status == 400 && !output.lowercased().contains("set-cookie: x\r\n") && !output.contains("\nX: y"),
        "\(output)")
      let split = try await servers.get("/api/sessions", ["-H", "Origin: https://a\u{1}b"])
      #expect(split.status == 400 || split.status == 200)
      _ = await servers.stop()
    }
  }
}
