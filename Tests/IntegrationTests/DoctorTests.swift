import EventLoop
import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Doctor")
  struct DoctorTests {
    private struct Report: CustomStringConvertible {
      let exitCode: Int32?
      let codes: [String]
      let description: String
    }

    /// Runs `sluice doctor --json`.
    private static func examine(
      _ url: String, _ arguments: [String] = [], _ environment: [String: String] = [:]
    ) async throws -> Report {
      let program = try Program(
        releaseDirectory + "/sluice", ["doctor", url, "--json"] + arguments, environment: environment)
      let code = await program.exitCode(within: .seconds(120))
      let object = try JSONSerialization.jsonObject(with: Data(program.output.utf8)) as? [String: Any]
      let findings = object?["findings"] as? [[String: Any]] ?? []
      #expect(object?["ok"] as? Bool == findings.isEmpty && code == (findings.isEmpty ? 0 : 1), "\(program.output)")
      // Each finding says what would mend it.
      #expect(findings.allSatisfy { ($0["fix"] as? String)?.isEmpty == false && $0["message"] != nil })
      return Report(
        exitCode: code, codes: findings.compactMap { $0["code"] as? String },
        description: program.output + program.errors)
    }

    private static let shipped = "fastcgi_buffering off;"

    @Test("Each fault of the web server has its own finding, and a good installation has none")
    func webServer() async throws {
      let good = try await Site()
      let buffering = try await Site(
        location: "    fastcgi_ignore_headers X-Accel-Buffering;",
        replacing: [(Self.shipped, "fastcgi_buffering on;")])
      let compressing = try await Site(replacing: [("gzip off;", "gzip on; gzip_types text/event-stream;")])
      let impatient = try await Site(replacing: [("fastcgi_read_timeout 620s;", "fastcgi_read_timeout 5s;")])
      let dying = try await Site()
      let short = try await Site(["SLUICE_STREAM_TIMEOUT": "5s"])
      async let shortReport = Self.examine(short.url)
      async let goodReport = Self.examine(good.url)
      async let bufferingReport = Self.examine(buffering.url)
      async let compressingReport = Self.examine(compressing.url)
      async let impatientReport = Self.examine(impatient.url)
      async let dyingReport = Self.examine(dying.url)
      // The second stream is the one that is measured.
      #expect(await eventually { dying.sluice.program.log("stream started").count == 2 })
      dying.sluice.program.signal(SIGKILL)
      for (report, codes) in [
        (try await goodReport, []), (try await bufferingReport, ["buffered"]),
        (try await compressingReport, ["compressed"]),
        (try await impatientReport, ["read_timeout"]), (try await dyingReport, ["no_terminal_record"]),
        (try await shortReport, ["read_timeout"]),
      ] as [(Report, [String])] {
        #expect(report.codes == codes, "\(report)")
      }
      // The examination leaves nothing behind.
      #expect(!FileManager.default.fileExists(atPath: good.sluice.directory + "/state/.doctor"))
      for site in [good, buffering, compressing, impatient] { await site.stop() }
    }

    @Test(
      "A site that does not answer, or is not Sluice's, a refused token and a wrong clock have findings of their own")
    func site() async throws {
      #expect(try await Self.examine("http://127.0.0.1:1").codes == ["unreachable"])
      #expect(try await Self.examine("http://host.invalid").codes == ["unreachable"])
      let site = try await Site()
      site.sluice.program.signal(SIGKILL)
      #expect(await eventually { !site.sluice.program.isRunning })
      #expect(try await Self.examine(site.url).codes == ["unreachable"])
      let page = try ScriptedUpstream { $0.respond("200 OK", "<h1>Welcome</h1>", type: "text/html") }
      #expect(try await Self.examine("http://127.0.0.1:\(page.port)").codes == ["not_sluice"])
      let late = try ScriptedUpstream {
        $0.respond("200 OK", #"{"status":"ok"}"#, more: "Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n")
      }
      let report = try await Self.examine("http://127.0.0.1:\(late.port)")
      #expect(report.codes == ["clock_skew", "not_sluice"] && report.description.contains("behind this"), "\(report)")
      let tokens = TemporaryDirectory()
      let closed = try await Site(["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": tokens.file("tokens", "")])
      for arguments in [[], ["--token", "wrong"]] {
        #expect(try await Self.examine(closed.url, arguments).codes == ["unauthorized"])
      }
      let moved = try ScriptedUpstream {
        $0.respond("301 Moved", "", more: "Location: https://chat.example.com/healthz\r\n")
      }
      let redirect = try await Self.examine("http://127.0.0.1:\(moved.port)")
      #expect(redirect.codes == ["not_sluice"] && redirect.description.contains("redirects to https://"), "\(redirect)")
      let busy = try await Site(["SLUICE_STREAMS_PER_USER": "1"])
      async let stream = busy.request("/api/doctor/stream?seconds=2")
      #expect(await eventually { !busy.sluice.program.log("stream started").isEmpty })
      let refused = try await Self.examine(busy.url)
      #expect(refused.codes == ["unreachable"] && refused.description.contains("too_many_streams"), "\(refused)")
      _ = try await stream
      await busy.stop()
      let wrong = try Program(releaseDirectory + "/sluice", ["doctor", "chat.example.com"])
      #expect(await wrong.exitCode() == 2 && wrong.errors.contains("http://"), "\(wrong.errors)")
      await closed.stop()
    }

    @Test("On the service's machine, a socket that nginx cannot use is found")
    func socket() async throws {
      let site = try await Site()
      let listen = ["SLUICE_LISTEN": "unix:\(site.sluice.socket)"]
      unsafe chmod(site.sluice.socket, 0o600)
      for environment in [listen, ["SLUICE_LISTEN": "unix:/nowhere/s"]] {
        let report = try await Self.examine("http://127.0.0.1:1", [], environment)
        #expect(report.codes == ["socket_permissions", "unreachable"], "\(report)")
      }
      unsafe chmod(site.sluice.socket, 0o666)
      #expect(try await Self.examine("http://127.0.0.1:1", [], listen).codes == ["unreachable"])
    }

    /// Returns the codes that the installation reports of itself.
    private func installation(_ site: Site) async throws -> (codes: [String], text: String) {
      let text = try await site.request("/api/doctor")
      let body = text.components(separatedBy: "\r\n\r\n").last ?? ""
      let object = try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]
      let findings = object?["findings"] as? [[String: Any]] ?? []
      return (findings.compactMap { $0["code"] as? String }, text)
    }

    @Test("A process with few file descriptors left says so, and which setting of the unit gives it more")
    func descriptors() async throws {
      let directory = TemporaryDirectory()
      let script = directory.file("limited", "#!/bin/sh\nulimit -n 100\nexec \(releaseDirectory)/sluice\n")
      unsafe chmod(script, 0o755)
      let site = try await Site(program: script)
      #expect(try await installation(site).codes == [])
      var connections: [FastCGIClient] = []
      var report = try await installation(site)
      // Each connection takes descriptors of the process, of which 100 are few.
      while report.codes.isEmpty, connections.count < 30 {
        connections.append(try FastCGIClient(path: site.sluice.socket))
        report = try await installation(site)
      }
      #expect(report.codes == ["descriptors"] && report.text.contains("LimitNOFILE="), "\(report.text)")
      connections = []
      #expect(await eventually { (try? await installation(site).codes) == [] })
      await site.stop()
    }

    @Test("Each fault of the model server has its own finding, and its address and key stay out of the answer")
    func upstream() async throws {
      let script: @Sendable (ScriptedUpstream.Exchange) -> Void = { exchange in
        let text = exchange.request.body
        switch true {
        case text.contains("\"key\""): exchange.respond("401 Unauthorized", #"{"error":{"code":"invalid_api_key"}}"#)
        case text.contains("\"gone\""): exchange.respond("404 Not Found", #"{"error":{"code":"model_not_found"}}"#)
        case text.contains("\"unknown\""): exchange.respond("400 Bad Request", #"{"error":{"code":"model_not_found"}}"#)
        case text.contains("\"html\""): exchange.respond("200 OK", "<html>", type: "text/html")
        case text.contains("\"busy\""): exchange.respond("503 Service Unavailable", "{}")
        default: exchange.stream(["OK"])
        }
      }
      let upstream = try ScriptedUpstream(script)
      let key = TemporaryDirectory()
      let path = key.file("key", "sk-secret-of-the-doctor")
      for (model, codes) in [
        ("good", []), ("key", ["upstream_unauthorized"]), ("gone", ["upstream_model"]), ("unknown", ["upstream_model"]),
        ("html", ["upstream_not_streaming"]), ("busy", ["upstream_unreachable"]),
      ] as [(String, [String])] {
        let site = try await Site([
          "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MODEL": model, "SLUICE_UPSTREAM_KEY_FILE": path,
        ])
        let (found, text) = try await installation(site)
        #expect(found == codes, "\(model): \(text)")
        #expect(!text.contains("sk-secret") && !text.contains("\(upstream.port)"), "\(text)")
        await site.stop()
      }
      let site = try await Site(["SLUICE_UPSTREAM_URL": "http://127.0.0.1:1/v1", "SLUICE_MODEL": "m"])
      #expect(try await installation(site).codes == ["upstream_unreachable"])
      await site.stop()
    }

    @Test("A command that fails or is silent is found, and does not outlive the check")
    func command() async throws {
      for command in ["false", "sleep 60"] {
        let site = try await Site([
          "SLUICE_GENERATOR": "command", "SLUICE_COMMAND": command, "SLUICE_FIRST_TOKEN_TIMEOUT": "300ms",
        ])
        let (found, text) = try await installation(site)
        #expect(found == ["upstream_unreachable"] && text.contains("SLUICE_COMMAND"), "\(command): \(text)")
        let pid = site.sluice.program.pid
        #expect(
          await eventually { (try? String(contentsOfFile: "/proc/\(pid)/task/\(pid)/children", encoding: .utf8)) == "" }
        )
        await site.stop()
      }
    }

    @Test("A store that is full or cannot be written to, and a lack of descriptors, are found")
    func resources() async throws {
      let disk = try await SmallDisk(size: "1m")
      let site = try await Site(["SLUICE_STATE": disk.path + "/state"])
      #expect(try await installation(site).codes == [])
      disk.fill()
      #expect(try await installation(site).codes == ["store_full"])
      disk.empty()
      try await disk.remount("ro")
      #expect(try await installation(site).codes == ["store_unwritable"])
      try await disk.remount("rw")
      #expect(try await installation(site).codes == [])
      await site.stop()
    }

    @Test("The doctor's stream refuses other numbers, lasts as long as asked, and outlasts the idle timeout")
    func stream() async throws {
      let site = try await Site(["SLUICE_IDLE_TIMEOUT": "500ms", "SLUICE_HEARTBEAT": "300ms"])
      for query in ["seconds=0", "seconds=121", "seconds=x", "silence=-1", "silence=121", "seconds="] {
        let text = try await site.request("/api/doctor/stream?" + query)
        #expect(text.contains(" 400 ") && text.contains("must be an integer from"), "\(query): \(text)")
      }
      let text = try await site.request("/api/doctor/stream?seconds=1&silence=2")
      #expect(text.components(separatedBy: "event: token").count == 5 && text.contains("event: done"), "\(text)")
      #expect(text.components(separatedBy: "event: heartbeat").count >= 5, "\(text)")
      #expect(site.sluice.program.log("stream ended").last?["outcome"] as? String == "completed")
      await site.stop()
    }
  }
}
