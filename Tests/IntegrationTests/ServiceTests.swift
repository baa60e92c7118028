import Foundation
import SluiceTesting
import Testing

private let manyWords = String(repeating: "word ", count: 1000)

extension Integration {
  @Suite("Service")
  struct ServiceTests {
    @Test("At SIGTERM, the service lets running streams complete and exits with status 0")
    func drain() async throws {
      let sluice = try await Sluice()
      let client = try sluice.chat(String(repeating: "word ", count: 50))
      #expect(await eventually { !sluice.program.log("stream started").isEmpty })
      sluice.program.signal(SIGTERM)
      #expect(await eventually { !sluice.program.log("draining").isEmpty })
      #expect(client.readResponse().text.contains("event: done"))
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("While draining, the service refuses new requests immediately, and a running stream can be stopped")
    func refusals() async throws {
      let sluice = try await Sluice()
      let client = try sluice.chat(manyWords)
      #expect(await eventually { !sluice.program.log("stream started").isEmpty })
      sluice.program.signal(SIGTERM)
      #expect(await eventually { !sluice.program.log("draining").isEmpty })
      for path in ["/api/chat", "/api/sessions", "/healthz", "/v1/models"] {
        let start = ContinuousClock.now
        let other = try FastCGIClient(path: sluice.socket)
        other.send(
          FastCGIClient.request([("REQUEST_METHOD", path == "/api/chat" ? "POST" : "GET"), ("REQUEST_URI", path)]))
        let text = other.readResponse().text
        #expect(
          text.hasPrefix("Status: 503 ") && text.contains("shutting_down") && text.contains("Retry-After: "), "\(text)")
        #expect(ContinuousClock.now - start < .seconds(2))
      }
      let id = sluice.program.log("stream started").first?["stream"] as? String ?? ""
      let stop = try FastCGIClient(path: sluice.socket)
      stop.send(FastCGIClient.request([("REQUEST_METHOD", "DELETE"), ("REQUEST_URI", "/api/streams/\(id)")]))
      #expect(stop.readResponse().text.hasPrefix("Status: 204 "))
      #expect(client.readResponse().text.contains("event: cancelled"))
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("The service exits at SIGTERM even if its log is not read")
    func unreadLog() async throws {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      // The pipe is full before the service starts, so its log writes block forever.
      let program = try Program(
        "/usr/bin/env",
        [
          "python3", "-c",
          """
          import fcntl, os, subprocess, sys
          read, write = os.pipe()
          fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
          os.write(write, b"x" * 4096)
          child = subprocess.Popen([sys.argv[1]], stderr=write)
          print(child.pid, flush=True)
          sys.exit(child.wait())
          """, releaseDirectory + "/sluice",
        ],
        environment: [
          "SLUICE_LISTEN": "unix:\(directory)/s", "SLUICE_STATE": directory + "/state", "SLUICE_AUTH": "none",
          "SLUICE_ECHO_GAP": "0", "SLUICE_LOG": "debug",
        ])
      #expect(await eventually { (try? FastCGIClient(path: directory + "/s")) != nil })
      for _ in 0..<20 {
        #expect(try Sluice.chat("a b", at: directory + "/s").readResponse().text.contains("event: done"))
      }
      let pid = try #require(Int32(program.output.trimmingCharacters(in: .whitespacesAndNewlines)))
      kill(pid, SIGTERM)
      let code = await program.exitCode(within: .seconds(10))
      #expect(code == 0, "\(String(describing: code))")
      if code == nil { kill(pid, SIGKILL) }
    }

    @Test("A stream that outlasts the drain timeout ends with a shutting_down error")
    func drainTimeout() async throws {
      let sluice = try await Sluice(["SLUICE_DRAIN_TIMEOUT": "300ms"])
      let client = try sluice.chat(manyWords)
      #expect(await eventually { !sluice.program.log("stream started").isEmpty })
      sluice.program.signal(SIGTERM)
      let text = client.readResponse().text
      #expect(text.contains("event: error\ndata: {\"code\":\"shutting_down\""), "\(text.suffix(300))")
      #expect(await sluice.program.exitCode() == 0)
      #expect(sluice.program.log("stream ended").first?["outcome"] as? String == "shutdown")
    }

    @Test("Connections that send a partial request, malformed records or nothing do not delay others")
    func halfRequests() async throws {
      let sluice = try await Sluice()
      let request = FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/healthz")])
      var others: [FastCGIClient] = []
      for index in 0..<300 {
        let client = try FastCGIClient(path: sluice.socket)
        switch index % 3 {
        case 0: client.send(Array(request.dropLast(9)))
        case 1: client.send(FastCGIClient.record(9, id: 0, [1, 2, 3]))
        default: break
        }
        others.append(client)
      }
      let start = ContinuousClock.now
      let client = try FastCGIClient(path: sluice.socket)
      client.send(request)
      #expect(client.readResponse().text.contains("\"status\":\"ok\""))
      #expect(ContinuousClock.now - start < .seconds(2))
      withExtendedLifetime(others) {}
    }

    @Test("A signal that arrives during startup is not lost")
    func earlySignal() async throws {
      let runtime = TemporaryDirectory()
      try FileManager.default.createDirectory(atPath: runtime.path + "/unsaved", withIntermediateDirectories: true)
      // Startup waits for the content of this file of unsaved turns.
      let isCreated = unsafe mkfifo(runtime.path + "/unsaved/a.json", 0o600) == 0
      #expect(isCreated)
      let sluice = try await Sluice(["RUNTIME_DIRECTORY": runtime.path])
      sluice.program.signal(SIGTERM)
      #expect(sluice.program.log("ready").isEmpty && sluice.program.isRunning)
      // Opened without waiting, which succeeds as soon as the program waits for the content.
      let isReleased = await eventually {
        let number = unsafe open(runtime.path + "/unsaved/a.json", O_WRONLY | O_NONBLOCK)
        return number >= 0 && close(number) == 0
      }
      #expect(isReleased)
      #expect(await sluice.program.exitCode() == 0, "\(sluice.program.errors)")
      #expect(sluice.program.log("stopped").count == 1)
    }

    @Test("Connections are spread over several loops, and a stream can be stopped from any of them")
    func loops() async throws {
      let sluice = try await Sluice(["SLUICE_LOOPS": "3", "SLUICE_ECHO_GAP": "20ms"])
      let clients = try (0..<9).map { _ in try sluice.chat(manyWords) }
      #expect(await eventually { sluice.program.log("stream started").count == 9 })
      for line in sluice.program.log("stream started") {
        let id = try #require(line["stream"] as? String)
        let client = try FastCGIClient(path: sluice.socket)
        client.send(FastCGIClient.request([("REQUEST_METHOD", "DELETE"), ("REQUEST_URI", "/api/streams/\(id)")]))
        #expect(client.readResponse().text.hasPrefix("Status: 204"))
      }
      for client in clients {
        #expect(client.readResponse().text.hasSuffix("event: cancelled\ndata: {\"reason\":\"stopped\"}\n\n"))
      }
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("As a CGI program, Sluice responds on standard output and logs to standard error")
    func cgi() async throws {
      let state = FileManager.default.temporaryDirectory.path + "/sluice-cgi-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: state) }
      let body = "{\"message\":\"one two three\"}"
      let environment = [
        "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "POST", "PATH_INFO": "/api/chat",
        "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "\(body.utf8.count)", "SLUICE_AUTH": "none",
        "SLUICE_STATE": state, "SLUICE_ECHO_GAP": "50ms",
      ]
      let program = try Program(releaseDirectory + "/sluice", environment: environment, input: body)
      #expect(await program.exitCode() == 0)
      #expect(
        program.output.hasPrefix("Status: 200 OK\r\n") && program.output.contains("event: done"), "\(program.output)")
      #expect(program.chunks.count >= 3)
      #expect(program.log("stream ended").first?["outcome"] as? String == "completed")
      let refused = try Program(
        releaseDirectory + "/sluice", environment: environment.merging(["REQUEST_METHOD": "GET"]) { $1 }, input: body)
      #expect(await refused.exitCode() == 0)
      #expect(refused.output.hasPrefix("Status: 405 "), "\(refused.output)")
      // The web server closes the pipe mid-stream.
      let left = try Program(
        "/bin/sh", ["-c", "\"$0\" | head -c 300 >/dev/null", releaseDirectory + "/sluice"],
        environment: environment.merging(["CONTENT_LENGTH": "\(manyWords.utf8.count + 14)", "SLUICE_ECHO_GAP": "5ms"]) {
          $1
        },
        input: "{\"message\":\"\(manyWords)\"}")
      #expect(await left.exitCode() == 0)
      #expect(left.log("stream ended").first?["outcome"] as? String == "disconnected", "\(left.errors)")
    }

    @Test("The service accepts its socket from systemd, and its units are valid")
    func systemd() async throws {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      let activator = try Program(
        "/usr/bin/systemd-socket-activate",
        [
          "-l", directory + "/s", "-E", "SLUICE_AUTH=none", "-E", "SLUICE_STATE=\(directory)/state",
          releaseDirectory + "/sluice",
        ])
      #expect(await eventually { FileManager.default.fileExists(atPath: directory + "/s") })
      let client = try FastCGIClient(path: directory + "/s")
      client.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/healthz")]))
      #expect(client.readResponse().text.contains("\"status\":\"ok\""), "\(activator.errors)")
      activator.signal(SIGTERM)
      #expect(await activator.exitCode() == 0)
      let verify = try Program(
        "/usr/bin/systemd-analyze",
        ["verify", "--man=no", packageRoot + "/systemd/sluice.service", packageRoot + "/systemd/sluice.socket"])
      let code = await verify.exitCode()
      let warnings = (verify.output + verify.errors).split(separator: "\n").filter {
        // systemd/install installs the program, and the tests do not run it.
        !$0.contains("/usr/local/bin/sluice is not executable") && $0.contains("sluice")
      }
      #expect(warnings.isEmpty, "\(code ?? -1): \(warnings)")
      // In tenths: an exposure of at most 1.5.
      let security = try Program(
        "/usr/bin/systemd-analyze",
        ["security", "--offline=true", "--threshold=15", "--no-pager", packageRoot + "/systemd/sluice.service"])
      #expect(await security.exitCode() == 0, "\(security.output.suffix(200))")
    }

    @Test("The README contains the example of a custom endpoint verbatim, and the example works")
    func customEndpoint() async throws {
      let source = try String(
        contentsOfFile: packageRoot + "/Tests/Examples/Countdown/Countdown.swift", encoding: .utf8)
      let readme = try String(contentsOfFile: packageRoot + "/README.md", encoding: .utf8)
      #expect(readme.contains(source))
      let sluice = try await Sluice(executable: "sluice-countdown")
      for (path, expected) in [
        ("/countdown/3", "{\"t\":\"3 \"}\n\nevent: token\ndata: {\"t\":\"2 \"}"), ("/countdown/x", "bad_request"),
      ] {
        let client = try FastCGIClient(path: sluice.socket)
        client.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", path)]))
        let text = client.readResponse().text
        #expect(text.contains(expected), "\(text)")
      }
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }
  }
}

extension Integration {
  @Suite("Example programs")
  struct ExampleTests {
    private func send(_ sluice: Sluice, _ parameters: [(String, String)], body: String = "") throws -> FastCGIClient {
      let client = try FastCGIClient(path: sluice.socket)
      client.send(
        FastCGIClient.request(
          parameters + [("CONTENT_TYPE", "application/json"), ("CONTENT_LENGTH", "\(body.utf8.count)")],
          body: Array(body.utf8)))
      return client
    }

    @Test("The relay example streams its own model in its own dialect to the users that it authenticates")
    func relay() async throws {
      let sluice = try await Sluice(executable: "sluice-relay")
      let post = [("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/summary"), ("HTTP_X_USER", "ada")]
      let text = try send(sluice, post, body: #"{"text":"four words are here"}"#).readResponse().text
      #expect(text.contains(#"data: {"line":"19 characters,\n"}"#) && text.contains("Summarised for ada."), "\(text)")
      #expect(text.contains("event: end\ndata: {\"ok\":true}"), "\(text)")
      #expect(try send(sluice, Array(post.dropLast()), body: "{}").readResponse().text.contains("Say who you are"))
      #expect(try send(sluice, post, body: "{}").readResponse().text.contains("bad_request"))
      let version = try send(sluice, [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/version")]).readResponse().text
      #expect(version.contains(#"{"version":"1"}"#), "\(version)")
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("The log tail example runs alongside other work, and SIGTERM ends its stream with a shutting_down record")
    func logTail() async throws {
      let log = FileManager.default.temporaryDirectory.path + "/\(UUID()).log"
      defer { try? FileManager.default.removeItem(atPath: log) }
      try "first\n".write(toFile: log, atomically: false, encoding: .utf8)
      let sluice = try await Sluice(
        ["SLUICE_DRAIN_TIMEOUT": "100ms"], executable: "sluice-log-tail", arguments: [log])
      let client = try send(sluice, [("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/log")])
      let first = client.readResponse(until: #""content":"first\n""#)
      let writing = try #require(FileHandle(forWritingAtPath: log))
      try writing.seekToEnd()
      try writing.write(contentsOf: Data("second\n".utf8))
      let second = client.readResponse(until: #""content":"second\n""#)
      sluice.program.signal(SIGTERM)
      let last = client.readResponse()
      let text = first.text + second.text + last.text
      #expect(last.isEnded && last.text.contains("shutting_down"), "\(text)")
      #expect(text.contains(#""content":"first\n""#) && text.contains(#""content":"second\n""#), "\(text)")
      #expect(await sluice.program.exitCode() == 0)
    }
  }
}

extension Integration {
  @Suite("Command line")
  struct ProgramTests {
    private func run(_ arguments: [String], _ environment: [String: String] = [:]) async throws -> (
      Int32?, String, String
    ) {
      let program = try Program(releaseDirectory + "/sluice", arguments, environment: environment)
      let code = await program.exitCode()
      return (code, program.output, program.errors)
    }

    @Test("The options print the version and the settings, and an unknown option is reported")
    func options() async throws {
      #expect(try await run(["--version"]).1.hasPrefix("sluice 0."))
      #expect(try await run(["--help"]).1.contains("SLUICE_TOKENS_FILE"))
      let unknown = try await run(["--what"])
      #expect(unknown.0 == 2 && unknown.2.contains("--what"))
    }

    @Test("Optional libraries are loaded only by a configuration that needs them")
    func libraries() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["Hi"]) }
      for (url, loadsLibcurl) in [(upstream.baseURL, false), ("https://127.0.0.1:1/v1", true)] {
        let sluice = try await Sluice(["SLUICE_UPSTREAM_URL": url])
        _ = try sluice.chat("Hi").readResponse()
        let file = try FileHandle(forReadingFrom: URL(filePath: "/proc/\(sluice.program.pid)/maps"))
        let maps = String(decoding: try file.readToEnd() ?? Data(), as: UTF8.self)
        #expect(maps.contains("libcurl") == loadsLibcurl, "\(url)")
        for name in ["libcjose", "libpcre2", "libsystemd"] { #expect(!maps.contains(name), "\(name), \(url)") }
      }
    }

    @Test("A library that is needed and cannot be loaded is reported by --check, with the variable that needs it")
    func missingLibraries() async throws {
      let directory = TemporaryDirectory()
      for name in ["libcurl.so.4", "libpcre2-8.so.0", "libcjose.so.0"] {
        try "no library".write(toFile: "\(directory.path)/\(name)", atomically: true, encoding: .utf8)
      }
      for (name, text) in [("patterns", "a  b\n"), ("keys", String(repeating: "k", count: 40))] {
        try text.write(toFile: "\(directory.path)/\(name)", atomically: true, encoding: .utf8)
      }
      for (variable, value, library) in [
        ("SLUICE_UPSTREAM_URL", "https://a/v1", "libcurl"),
        ("SLUICE_REDACT_FILE", directory.path + "/patterns", "libpcre2"),
        ("SLUICE_JWT_KEYS_FILE", directory.path + "/keys", "libcjose"),
      ] {
        let (code, _, errors) = try await run(
          ["--check"], ["SLUICE_AUTH": "none", "LD_LIBRARY_PATH": directory.path, variable: value])
        #expect(code == 1 && errors.contains(variable) && errors.contains(library), "\(errors)")
      }
    }

    @Test("An invalid configuration is reported by --check and at startup, and prevents the start")
    func check() async throws {
      let valid = try await run(["--check"], ["SLUICE_AUTH": "none", "SLUICE_MODLE": "x", "SLUICE_STATE": "/tmp/s"])
      #expect(valid.0 == 0 && valid.2 == "sluice: warning: SLUICE_MODLE is not a setting; did you mean SLUICE_MODEL?\n")
      #expect(
        valid.1 == """
          sluice: generator: echo, which repeats the message
          sluice: model: the client's
          sluice: address: systemd's socket, or descriptor 0
          sluice: store: /tmp/s
          sluice: authentication: none: every request is served
          sluice: the configuration is valid

          """, "\(valid)")
      let note = try await run(["--check"], ["SLUICE_AUTH": "none", "SLUICE_RESUME": "5s"])
      #expect(note.0 == 0 && note.1.contains("SLUICE_RESUME has no effect in a CGI program"), "\(note)")
      for arguments in [["--check"], []] {
        let (code, _, errors) = try await run(
          arguments, ["SLUICE_AUTH": "none", "SLUICE_LOOPS": "many", "SLUICE_LOG": "x"])
        #expect(
          code == 1 && errors.contains("SLUICE_LOOPS must be") && errors.contains("SLUICE_LOG must be"), "\(errors)")
      }
      let (code, _, errors) = try await run([], ["SLUICE_AUTH": "none"])
      #expect(code == 1 && errors.contains("SLUICE_LISTEN"), "\(errors)")
    }
  }
}
