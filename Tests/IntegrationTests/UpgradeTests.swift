import EventLoop
import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Upgrades without a lost stream")
  struct UpgradeTests {
    /// A copy of the program, which a test can replace.
    private final class Installation: Sendable {
      let directory = TemporaryDirectory()
      var path: String { directory.path + "/sluice" }

      init() throws { try replace(with: releaseDirectory + "/sluice") }

      /// Replaces the program as a package does: the new file gets the name of the old one.
      func replace(with source: String) throws {
        try FileManager.default.copyItem(atPath: source, toPath: path + ".new")
        guard unsafe rename(path + ".new", path) == 0 else { throw SystemError("rename") }
      }

      func replace(withScript text: String) throws {
        let file = directory.file("script", text)
        unsafe chmod(file, 0o755)
        try replace(with: file)
      }
    }

    /// The process ids in the log, of the processes that have been the main one.
    private func mainProcesses(_ sluice: Sluice) -> [Int32] {
      sluice.program.log("ready").compactMap { ($0["pid"] as? Int).map(Int32.init) }
    }

    /// Starts an upgrade, and waits until it has succeeded.
    private func upgrade(_ site: Site) async throws -> Int32 {
      let before = mainProcesses(site.sluice)
      kill(try #require(before.last), SIGUSR2)
      #expect(await eventually { mainProcesses(site.sluice).count > before.count }, "\(site.sluice.program.errors)")
      return try #require(mainProcesses(site.sluice).last)
    }

    private func isRunning(_ pid: Int32) -> Bool { kill(pid, 0) == 0 }

    /// Ends the processes that are no children of the test.
    private func end(_ site: Site) async {
      for pid in mainProcesses(site.sluice) where isRunning(pid) { kill(pid, SIGTERM) }
      #expect(await eventually { mainProcesses(site.sluice).allSatisfy { !isRunning($0) } })
      await site.stop()
    }

    @Test("Ten upgrades in a row, with streams and new requests all the while, lose nothing", arguments: [false, true])
    func upgrades(keepsConnections: Bool) async throws {
      let installation = try Installation()
      let site = try await Site(
        [
          "SLUICE_ECHO_GAP": "20ms", "SLUICE_STREAMS_PER_USER": "0", "SLUICE_MESSAGES_PER_HOUR": "0",
          "SLUICE_LOOPS": keepsConnections ? "2" : "1",
        ],
        location: keepsConnections ? "    fastcgi_keep_conn on;" : "", program: installation.path,
        replacing: keepsConnections ? [("fastcgi_pass unix:SOCKET;", "fastcgi_pass sluice;")] : [],
        http: keepsConnections ? "upstream sluice { server unix:SOCKET; keepalive 32; }" : "")
      let words = (0..<150).map { "w\($0)" }.joined(separator: " ")
      let streams = try (0..<40).map { _ in
        try Program(
          "/usr/bin/curl",
          ["-sSN", "-H", "Content-Type: application/json", "-d", #"{"message":"\#(words)"}"#, site.url + "/api/chat"])
      }
      // Requests until all upgrades are made: those that do not succeed are counted.
      let script = """
        failed=0 count=0
        while [ ! -e '\(installation.directory.path)/end' ]; do
          curl -fsS -o /dev/null '\(site.url)/healthz' || failed=$((failed + 1))
          curl -fsS -H 'Content-Type: application/json' -d '{"message":"a b"}' '\(site.url)/api/chat' | grep -q 'event: done' ||
            failed=$((failed + 1))
          count=$((count + 2))
        done
        echo "$count $failed"
        """
      let requesters = try (0..<6).map { _ in try Program("/bin/bash", ["-c", script]) }
      #expect(await eventually { streams.allSatisfy { $0.output.contains("w3") } })
      for index in 0..<10 {
        // A truly different file each time.
        try installation.replace(with: releaseDirectory + "/sluice")
        let handle = try FileHandle(forWritingTo: URL(filePath: installation.path))
        try handle.seekToEnd()
        try handle.write(contentsOf: Data("\(index)".utf8))
        try handle.close()
        _ = try await upgrade(site)
      }
      _ = installation.directory.file("end", "")
      for requester in requesters { _ = await requester.exitCode() }
      let counts = requesters.map { $0.output.split(whereSeparator: \.isWhitespace).compactMap { Int($0) } }
      #expect(
        counts.reduce(0) { $0 + $1[0] } > 40 && counts.allSatisfy { $0[1] == 0 },
        "\(counts) \(requesters.map(\.errors))")
      for stream in streams {
        #expect(await stream.exitCode(within: .seconds(60)) == 0)
        #expect(stream.output.contains(#"{"t":"w149"}"#) || stream.output.contains(#"{"t":" w149"}"#))
        #expect(stream.output.contains("event: done"), "\(stream.output.suffix(300))")
      }
      let processes = mainProcesses(site.sluice)
      #expect(Set(processes).count == 11)
      // The earlier ones end with their last stream; with connections that are kept, when nginx has closed those.
      if !keepsConnections { #expect(await eventually { processes.dropLast().allSatisfy { !isRunning($0) } }) }
      await end(site)
    }

    @Test("A stream of an earlier process can be stopped, a deleted session stops it, and a shutdown waits for it")
    func earlierStreams() async throws {
      let site = try await Site(["SLUICE_ECHO_GAP": "50ms", "SLUICE_STREAMS_PER_USER": "0"])
      let words = String(repeating: "word ", count: 60)
      func start(_ session: String) throws -> Program {
        try Program(
          "/usr/bin/curl",
          [
            "-sSNi", "-H", "Content-Type: application/json", "-d",
            #"{"message":"\#(words)","sessionId":"\#(session)"}"#,
            site.url + "/api/chat",
          ])
      }
      let streams = try ["stopped", "deleted", "kept"].map(start)
      #expect(await eventually { streams.allSatisfy { $0.output.contains("event: token") } })
      // Two upgrades: the request passes through a process that no longer has the stream either.
      _ = try await upgrade(site)
      let last = try await upgrade(site)
      let id = try #require(streams[0].output.firstMatch(of: /Sluice-Stream-Id: (\S+)/)?.1)
      #expect(try await site.request("/api/streams/\(id)", nil, ["-X", "DELETE"]).status == 204)
      #expect(
        try await site.request("/api/streams/01a22a8e-5efb-7d0b-a7d7-7d434dcaba63", nil, ["-X", "DELETE"]).status == 404
      )
      #expect(try await site.request("/api/sessions/deleted", nil, ["-X", "DELETE"]).status == 204)
      for stream in streams.prefix(2) {
        _ = await stream.exitCode()
        #expect(stream.output.contains("event: cancelled"), "\(stream.output.suffix(300))")
      }
      // The service manager signals the main process only.
      kill(last, SIGTERM)
      #expect(await eventually { site.sluice.program.log("draining").count == 3 })
      _ = await streams[2].exitCode()
      #expect(streams[2].output.contains("event: done"), "\(streams[2].output.suffix(300))")
      #expect(await eventually { mainProcesses(site.sluice).allSatisfy { !isRunning($0) } })
      await site.stop()
    }

    @Test("A stream of an earlier process can be read again: by its id, by its session, and by an EventSource")
    func reading() async throws {
      let site = try await Site(["SLUICE_ECHO_GAP": "60ms", "SLUICE_RESUME": "30s", "SLUICE_STREAMS_PER_USER": "0"])
      let words = (0..<60).map { "w\($0)" }.joined(separator: " ")
      let post = try Program(
        "/usr/bin/curl",
        [
          "-sSNi", "-H", "Content-Type: application/json", "-d", #"{"message":"\#(words)","sessionId":"s"}"#,
          site.url + "/api/chat",
        ])
      let get = try Program(
        "/usr/bin/curl", ["-sSNi", site.url + "/chat/stream?message=" + words.replacingOccurrences(of: " ", with: "+")])
      #expect(await eventually { post.output.contains("w3") && get.output.contains("w3") })
      func id(_ output: String) throws -> Substring {
        try #require(output.firstMatch(of: /Sluice-Stream-Id: (\S+)/)?.1)
      }
      let (posted, gotten) = (try id(post.output), try id(get.output))
      for program in [post, get] { program.signal(SIGKILL) }
      _ = try await upgrade(site)
      _ = try await upgrade(site)
      let (readings) = try [
        "/api/streams/\(posted)", "/api/sessions/s/stream",
      ].map { try Program("/usr/bin/curl", ["-sSN", "--max-time", "30", site.url + $0]) }
      let eventSource = try Program(
        "/usr/bin/curl",
        ["-sSN", "--max-time", "30", "-H", "Last-Event-ID: \(gotten).2", site.url + "/chat/stream?message=x"])
      for reading in readings {
        _ = await reading.exitCode()
        let text = reading.output.matches(of: /\{"t":"([^"]*)"\}/).map(\.1).joined()
        #expect(text == words && reading.output.contains("event: done"), "\(reading.output.suffix(200))")
      }
      _ = await eventSource.exitCode()
      let text = eventSource.output.matches(of: /"content":"([^"]*)"/).map(\.1).joined()
      #expect(
        words.hasSuffix(text) && text.hasSuffix("w59") && text.contains("w5 "), "\(eventSource.output.suffix(200))")
      #expect(eventSource.output.contains(#""type":"complete""#))
      // What no process has is refused by the last one that is asked.
      #expect(try await site.request("/api/streams/01a22a8e-5efb-7d0b-a7d7-7d434dcaba63").status == 404)
      await end(site)
    }

    @Test("A request with the Idempotency-Key of a stream of an earlier process reads that stream")
    func idempotencyKey() async throws {
      let site = try await Site(["SLUICE_ECHO_GAP": "60ms", "SLUICE_RESUME": "30s", "SLUICE_STREAMS_PER_USER": "0"])
      let words = (0..<60).map { "w\($0)" }.joined(separator: " ")
      func post(_ message: String) throws -> Program {
        try Program(
          "/usr/bin/curl",
          [
            "-sSNi", "--max-time", "30", "-H", "Content-Type: application/json", "-H", "Idempotency-Key: k", "-d",
            #"{"message":"\#(message)","sessionId":"s"}"#, site.url + "/api/chat",
          ])
      }
      let first = try post(words)
      #expect(await eventually { first.output.contains("w3") })
      first.signal(SIGKILL)
      _ = try await upgrade(site)
      _ = try await upgrade(site)
      let (again, other) = (try post(words), try post("another message"))
      _ = await again.exitCode()
      let text = again.output.matches(of: /\{"t":"([^"]*)"\}/).map(\.1).joined()
      #expect(text == words && again.output.contains("event: done"), "\(again.output.suffix(300))")
      _ = await other.exitCode()
      #expect(other.output.contains("400 Bad Request") && other.output.contains("different request"), "\(other.output)")
      // One turn: the model was asked once.
      let session = try await site.request("/api/sessions/s")
      #expect(session.components(separatedBy: "assistant").count == 2, "\(session)")
      await end(site)
    }

    @Test("An upgrade of nginx itself (SIGUSR2, SIGQUIT) lets streams finish, and new requests are served at once")
    func nginx() async throws {
      let site = try await Site(["SLUICE_ECHO_GAP": "50ms", "SLUICE_STREAMS_PER_USER": "0"])
      // nginx is upgraded only where it has no parent: as a daemon.
      site.nginx.signal(SIGTERM)
      _ = await site.nginx.exitCode()
      let configuration = site.sluice.directory + "/nginx.conf"
      try String(contentsOfFile: configuration, encoding: .utf8).replacingOccurrences(
        of: "daemon off", with: "daemon on"
      )
      .write(toFile: configuration, atomically: true, encoding: .utf8)
      let starting = try Program("/usr/sbin/nginx", ["-p", site.sluice.directory, "-c", configuration])
      // The daemon keeps the pipes of the program that started it.
      #expect(await eventually { !starting.isRunning }, "\(starting.errors)")
      func pid(_ file: String) -> pid_t? {
        (try? String(contentsOfFile: site.sluice.directory + "/" + file, encoding: .utf8)).flatMap {
          pid_t($0.trimmingCharacters(in: .whitespacesAndNewlines))
        }
      }
      #expect(await eventually { pid("pid") != nil })
      let old = try #require(pid("pid"))
      let stream = try Program(
        "/usr/bin/curl",
        ["-sSN", "--max-time", "30", site.url + "/chat/stream?message=" + String(repeating: "word+", count: 60)])
      #expect(await eventually { stream.output.contains("word") })
      kill(old, SIGUSR2)
      #expect(await eventually { pid("pid.oldbin") == old && pid("pid").map { $0 != old } == true })
      let new = try #require(pid("pid"))
      defer { kill(new, SIGTERM) }
      kill(old, SIGQUIT)
      #expect(try await site.request("/healthz").contains("200 OK"))
      #expect(stream.isRunning)
      _ = await stream.exitCode()
      #expect(stream.output.contains(#""type":"complete""#), "\(stream.output.suffix(300))\(stream.errors)")
      #expect(await eventually { !isRunning(old) })
      #expect(try await site.request("/chat/stream?message=after").contains("after"))
      kill(new, SIGTERM)
      #expect(await eventually { !isRunning(new) })
      await site.stop()
    }

    @Test("The service manager is notified of the main process, of a failed upgrade, and of a long drain")
    func notifications() async throws {
      let installation = try Installation()
      let socket = installation.directory.path + "/notify"
      let manager = try Program(
        "/usr/bin/python3",
        [
          "-uc",
          """
          import socket
          s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
          s.bind('\(socket)')
          print('bound')
          while True: print(s.recv(4096).decode().replace('\\n', ' '))
          """,
        ])
      #expect(await eventually { manager.output.contains("bound") })
      let site = try await Site(
        ["NOTIFY_SOCKET": socket, "SLUICE_DRAIN_TIMEOUT": "500s"], program: installation.path)
      let first = try #require(mainProcesses(site.sluice).first)
      #expect(await eventually { manager.output.contains("READY=1\n") })
      try installation.replace(withScript: "#!/bin/sh\nexit 1\n")
      kill(first, SIGUSR2)
      let failure = "STATUS=0 streams; the last upgrade failed: it ended before it was ready; see its messages\n"
      #expect(await eventually { manager.output.contains(failure) }, "\(manager.output)")
      try installation.replace(with: releaseDirectory + "/sluice")
      let second = try await upgrade(site)
      // The main process is changed before the new one says anything.
      #expect(
        await eventually { manager.output.contains("MAINPID=\(second)\nREADY=1\nWATCHDOG=1\n") }, "\(manager.output)")
      kill(second, SIGTERM)
      #expect(
        await eventually { manager.output.contains("STOPPING=1 EXTEND_TIMEOUT_USEC=510000000\n") }, "\(manager.output)")
      await end(site)
      manager.signal(SIGKILL)
    }

    @Test("A program that is not ready in 30 seconds is killed, and the old one goes on")
    func hanging() async throws {
      let installation = try Installation()
      let site = try await Site(program: installation.path)
      let first = try #require(mainProcesses(site.sluice).first)
      let pid = installation.directory.path + "/pid"
      try installation.replace(withScript: "#!/bin/sh\necho $$ >\(pid)\nexec sleep 300\n")
      kill(first, SIGUSR2)
      #expect(await eventually { FileManager.default.fileExists(atPath: pid) })
      #expect(try await site.request("/healthz").status == 200)
      #expect(await eventually(within: .seconds(45)) { !site.sluice.program.log("upgrade failed").isEmpty })
      let reason = site.sluice.program.log("upgrade failed").first?["reason"] as? String
      #expect(reason == "it was not ready in 30.0 seconds", "\(site.sluice.program.errors)")
      let text = try String(contentsOfFile: pid, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
      let hung = try #require(Int32(text))
      #expect(await eventually { !isRunning(hung) })
      #expect(try await site.request("/healthz").status == 200)
      try installation.replace(with: releaseDirectory + "/sluice")
      _ = try await upgrade(site)
      await end(site)
    }

    @Test("A program that cannot start, or ends at once, leaves the old one serving, with the reason in the log")
    func broken() async throws {
      let installation = try Installation()
      let tokens = installation.directory.file("tokens", "alice:\(String(repeating: "0", count: 64))\n")
      let site = try await Site(["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": tokens], program: installation.path)
      let first = try #require(mainProcesses(site.sluice).first)
      func failures() -> Int { site.sluice.program.log("upgrade failed").count }
      let attempts: [() throws -> Void] = [
        { try installation.replace(withScript: "#!/bin/sh\nexit 1\n") },
        { try installation.replace(withScript: "no program") },
        { try FileManager.default.removeItem(atPath: installation.path) },
        {
          try installation.replace(with: releaseDirectory + "/sluice")
          try "alice:12\n".write(toFile: tokens, atomically: false, encoding: .utf8)
        },
      ]
      for (index, attempt) in attempts.enumerated() {
        try attempt()
        kill(first, SIGUSR2)
        #expect(await eventually { failures() == index + 1 }, "\(index): \(site.sluice.program.errors)")
        #expect(try await site.request("/healthz").status == 200, "\(index)")
      }
      #expect(site.sluice.program.errors.contains("SLUICE_TOKENS_FILE is invalid at line 1"))
      #expect(mainProcesses(site.sluice) == [first])
      try "alice:\(String(repeating: "0", count: 64))\n".write(toFile: tokens, atomically: true, encoding: .utf8)
      _ = try await upgrade(site)
      #expect(try await site.request("/healthz").status == 200)
      #expect(await eventually { !isRunning(first) })
      await end(site)
    }
  }
}
