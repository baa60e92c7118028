import EventLoop
import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

/// A preloaded library that puts `fdatasync` and `flock` under the control of a test: each call first compares its name
/// and the path of its descriptor with the test's control files.
private final class DiskControl: Sendable {
  let directory: String
  var library: String { directory + "/control.so" }

  init() async throws {
    directory = FileManager.default.temporaryDirectory.path + "/sluice-control-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    try """
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <signal.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    /* Whether the control file `name` names a call and a part of the path that `file` has. */
    static int matches(const char *name, const char *call, int file) {
      char control[256], link[64], path[512], words[2][64];
      snprintf(control, sizeof control, "\(directory)/%s", name);
      FILE *stream = fopen(control, "r");
      if (!stream) return 0;
      int count = fscanf(stream, "%63s %63s", words[0], words[1]);
      fclose(stream);
      snprintf(link, sizeof link, "/proc/self/fd/%d", file);
      ssize_t length = readlink(link, path, sizeof path - 1);
      if (count != 2 || length < 0) return 0;
      path[length] = 0;
      return !strcmp(words[0], call) && strstr(path, words[1]);
    }
    static int controlled(const char *call, int file) {
      if (matches("kill", call, file)) kill(getpid(), SIGKILL);
      if (matches("hold", call, file)) {
        close(open("\(directory)/blocked", O_CREAT | O_WRONLY, 0600));
        while (matches("hold", call, file)) usleep(1000);
      }
      if (matches("break", call, file)) { errno = EIO; return -1; }
      return 0;
    }
    int fdatasync(int file) { return controlled("sync", file) ? -1 : syscall(SYS_fdatasync, file); }
    int flock(int file, int operation) {
      return controlled("lock", file) ? -1 : syscall(SYS_flock, file, operation);
    }
    """.write(toFile: directory + "/control.c", atomically: true, encoding: .utf8)
    let compiler = try Program("/usr/bin/env", ["clang", "-shared", "-fPIC", "-o", library, directory + "/control.c"])
    #expect(await compiler.exitCode() == 0, "\(compiler.errors)")
  }

  /// Makes every `call` (`sync` or `lock`) on a path that contains `part` kill the process (`kill`), block (`hold`) or
  /// fail with EIO (`break`), until ``clear(_:)``.
  func set(_ what: String, _ call: String, _ part: String) throws {
    try "\(call) \(part)".write(toFile: directory + "/" + what, atomically: true, encoding: .utf8)
  }

  func clear(_ what: String) { unsafe unlink(directory + "/" + what) }

  /// Waits until a call blocks, and returns whether one did.
  func waitUntilBlocked() async -> Bool {
    await eventually { FileManager.default.fileExists(atPath: self.directory + "/blocked") }
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }
}

extension Integration {
  @Suite("Idempotency-Key")
  struct IdempotencyTests {
    private func post(
      _ sluice: Sluice, _ path: String, _ body: String, key: String = "k"
    ) throws -> FastCGIClient {
      let client = try FastCGIClient(path: sluice.socket)
      client.send(
        FastCGIClient.request(
          [
            ("REQUEST_METHOD", "POST"), ("REQUEST_URI", path), ("CONTENT_TYPE", "application/json"),
            ("CONTENT_LENGTH", "\(body.utf8.count)"), ("HTTP_IDEMPOTENCY_KEY", key),
          ], body: Array(body.utf8)))
      return client
    }

    private func get(_ sluice: Sluice, _ path: String, _ method: String = "GET") throws -> String {
      let client = try FastCGIClient(path: sluice.socket)
      let parts = path.split(separator: "?", maxSplits: 1)
      client.send(
        FastCGIClient.request([
          ("REQUEST_METHOD", method), ("REQUEST_URI", path), ("QUERY_STRING", parts.count == 2 ? String(parts[1]) : ""),
        ]))
      return client.readResponse().text
    }

    private func stored(_ sluice: Sluice, _ ending: String) -> [String] {
      let state = sluice.directory + "/state"
      let files = FileManager.default.enumerator(atPath: state)?.compactMap { $0 as? String } ?? []
      return files.filter { $0.hasSuffix(ending) }.flatMap { file in
        ((try? String(contentsOfFile: state + "/" + file, encoding: .utf8)) ?? "").split(separator: "\n").map(
          String.init)
      }
    }

    private static let chat = ("/api/chat", #"{"message":"Hi","sessionId":"s"}"#, "sessions", ".jsonl")
    private static let fresh = ("/api/chat", #"{"message":"Hi"}"#, "sessions", ".jsonl")
    private static let report = ("/api/ai/stream-report", #"{"input":"Hi","save":true}"#, "reports", ".json")

    private static let script: ScriptedUpstream.Script = { exchange in
      exchange.stream(exchange.request.body.contains("assessment") ? [#"{"a":"#, "1}"] : ["Hel", "lo"])
    }

    @Test(
      "A retry replays a response whose client disconnected or stopped it while it was being stored",
      arguments: [chat, fresh, report], [false, true])
    func leaves(_ what: (path: String, body: String, part: String, ending: String), stops: Bool) async throws {
      let disk = try await DiskControl()
      let upstream = try ScriptedUpstream(Self.script)
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_UPSTREAM_URL": upstream.baseURL])
      try disk.set("hold", "sync", what.part)
      do {
        let client = try post(sluice, what.path, what.body)
        #expect(await disk.waitUntilBlocked())
        if stops {
          let id = sluice.program.log("stream started").first?["stream"] as? String ?? ""
          #expect(try get(sluice, "/api/streams/\(id)", "DELETE").hasPrefix("Status: 204"))
        }
        withExtendedLifetime(client) {}
      }
      disk.clear("hold")
      #expect(await eventually { sluice.program.log("stream ended").count == 1 })
      let again = try post(sluice, what.path, what.body).readResponse().text
      #expect(again.contains("event: done"), "\(again)")
      #expect(upstream.requests.count == 1)
      let items = stored(sluice, what.ending).filter { !$0.contains("\"request\"") }
      #expect(items.count == 1, "\(items)")
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test(
      "A retry leaves exactly one stored result after the process is killed at any point while storing",
      arguments: [chat, fresh, report],
      [("sync", "replays"), ("lock", "sessions"), ("sync", "sessions"), ("sync", "reports")])
    func killed(
      _ what: (path: String, body: String, part: String, ending: String), moment: (call: String, part: String)
    ) async throws {
      let disk = try await DiskControl()
      let upstream = try ScriptedUpstream(Self.script)
      let environment = ["LD_PRELOAD": disk.library, "SLUICE_UPSTREAM_URL": upstream.baseURL]
      let first = try await Sluice(environment)
      try disk.set("kill", moment.call, moment.part)
      let text = try post(first, what.path, what.body).readResponse(timeout: .seconds(5)).text
      let wasKilled = !text.contains("event: done")
      disk.clear("kill")
      if wasKilled { #expect(await first.program.exitCode() == 128 + SIGKILL) } else { first.program.signal(SIGTERM) }
      _ = await first.program.exitCode()
      let second = try await Sluice(environment.merging(["SLUICE_STATE": first.directory + "/state"]) { $1 })
      for _ in 0..<2 {
        let again = try post(second, what.path, what.body).readResponse().text
        #expect(again.contains("event: done"), "\(again)")
      }
      let items = stored(first, what.ending).filter {
        !$0.contains("\"request\"") && !$0.hasPrefix("{\"v\":1,\"stream\"")
      }
      #expect(items.count == 1, "\(moment): \(items)")
      second.program.signal(SIGTERM)
      #expect(await second.program.exitCode() == 0)
    }

    @Test(
      "A retry after store_failed does not call the model, and completes when the turn is stored",
      arguments: [false, true])
    func storeFailed(inBackground: Bool) async throws {
      let disk = try await DiskControl()
      let upstream = try ScriptedUpstream(Self.script)
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_UPSTREAM_URL": upstream.baseURL])
      try disk.set("break", "sync", "sessions")
      #expect(try post(sluice, Self.chat.0, Self.chat.1).readResponse().text.contains("store_failed"))
      let early = try post(sluice, Self.chat.0, Self.chat.1).readResponse().text
      #expect(early.hasPrefix("Status: 500") && early.contains("store_failed"), "\(early)")
      disk.clear("break")
      if inBackground {
        #expect(await eventually(within: .seconds(40)) { stored(sluice, ".jsonl").count == 1 })
      }
      let late = try post(sluice, Self.chat.0, Self.chat.1).readResponse().text
      #expect(late.contains("event: done"), "\(late)")
      #expect(upstream.requests.count == 1 && stored(sluice, ".jsonl").count == 1)
      // The session continues.
      #expect(try sluice.chat("more", session: "s").readResponse().text.contains("event: done"))
      #expect(stored(sluice, ".jsonl").count == 2)
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("A retry after a report failed to be stored does not call the model, and stores the report once")
    func reportStoreFailed() async throws {
      let disk = try await DiskControl()
      let upstream = try ScriptedUpstream(Self.script)
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_UPSTREAM_URL": upstream.baseURL])
      for (index, part) in ["replays", "reports"].enumerated() {
        try disk.set("break", "sync", part)
        let key = "r\(index)"
        #expect(try post(sluice, Self.report.0, Self.report.1, key: key).readResponse().text.contains("store_failed"))
        #expect(try post(sluice, Self.report.0, Self.report.1, key: key).readResponse().text.contains("store_failed"))
        disk.clear("break")
        let late = try post(sluice, Self.report.0, Self.report.1, key: key).readResponse().text
        #expect(late.contains("event: done") && late.contains("reportId"), "\(late)")
        #expect(upstream.requests.count == index + 1)
        #expect(try get(sluice, "/api/reports").components(separatedBy: "\"title\"").count == index + 2)
      }
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("Retries beyond the stream limit are refused and cost little memory, however large the response is")
    func manyRetries() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.stream((0..<60).map { "\($0) " + String(repeating: "word ", count: 10_000) })
      }
      let sluice = try await Sluice(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_STREAMS_PER_USER": "2"])
      #expect(
        try post(sluice, Self.chat.0, Self.chat.1).readResponse(timeout: .seconds(30)).text.contains("event: done"))
      let before = sluice.memory
      let clients = try (0..<100).map { _ in try post(sluice, Self.chat.0, Self.chat.1) }
      let texts = clients.map { $0.readResponse(timeout: .seconds(30)).text }
      #expect(texts.count { $0.contains("event: done") } >= 2)
      #expect(texts.allSatisfy { $0.contains("event: done") || $0.contains("too_many_streams") })
      #expect(sluice.memory < before + 100_000, "\(before) KiB before, \(sluice.memory) after")
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("A replay does not recreate a session that is deleted in the meantime")
    func deletedMeanwhile() async throws {
      let disk = try await DiskControl()
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_ECHO_GAP": "0"])
      #expect(try post(sluice, Self.chat.0, Self.chat.1).readResponse().text.contains("event: done"))
      try disk.set("hold", "lock", "sessions")
      let again = try post(sluice, Self.chat.0, Self.chat.1)
      #expect(await disk.waitUntilBlocked())
      let delete = try FastCGIClient(path: sluice.socket)
      delete.send(FastCGIClient.request([("REQUEST_METHOD", "DELETE"), ("REQUEST_URI", "/api/sessions/s")]))
      disk.clear("hold")
      #expect(delete.readResponse().text.hasPrefix("Status: 204"))
      let text = again.readResponse().text
      #expect(text.contains("event: done") || text.contains("conflict"), "\(text)")
      #expect(try get(sluice, "/api/sessions/s").hasPrefix("Status: 404"))
      #expect(stored(sluice, ".jsonl").isEmpty)
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("Replays and stored data are redacted by the current patterns")
    func redactedLater() async throws {
      let upstream = try ScriptedUpstream { exchange in
        let isReport = exchange.request.body.contains("assessment")
        exchange.stream(isReport ? [#"{"say":"the SEC"#, #"RET","n":1}"#] : ["the SEC", "RET word"])
      }
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-later-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      try "other  OTHER\n".write(toFile: directory + "/patterns", atomically: true, encoding: .utf8)
      let sluice = try await Sluice([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_REDACT_FILE": directory + "/patterns",
      ])
      let first = try post(sluice, Self.chat.0, Self.chat.1).readResponse().text
      let report = try post(sluice, Self.report.0, Self.report.1, key: "r").readResponse().text
      #expect(first.contains("RET word") && report.contains("SECRET"), "\(first)\(report)")
      try "secret  SECRET\n".write(toFile: directory + "/patterns", atomically: true, encoding: .utf8)
      let id = report.components(separatedBy: "\"reportId\":\"").dropFirst().first?.prefix { $0 != "\"" } ?? ""
      for text in [
        try post(sluice, Self.chat.0, Self.chat.1).readResponse().text,
        try post(sluice, Self.report.0, Self.report.1, key: "r").readResponse().text,
        try get(sluice, "/api/sessions/s"), try get(sluice, "/messages/?chat_id=s"),
        try get(sluice, "/api/reports/\(id)"),
      ] {
        #expect(text.contains("[redacted]") && !text.contains("SECRET") && !text.contains("\"the SEC\""), "\(text)")
      }
      #expect(upstream.requests.count == 2)
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("A large response is replayed completely")
    func large() async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.stream((0..<64).map { "\($0) " + String(repeating: "word é ", count: 6_000) })
      }
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-large-\(UUID().uuidString.prefix(8))"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      try "mail  [a-z]{1,60}@[a-z]{1,60}\nkey  sk-[a-z]{10,40}\n".write(
        toFile: directory + "/patterns", atomically: true, encoding: .utf8)
      let sluice = try await Sluice([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_REDACT_FILE": directory + "/patterns",
      ])
      let first = try post(sluice, Self.chat.0, Self.chat.1).readResponse(timeout: .seconds(30)).text
      let again = try post(sluice, Self.chat.0, Self.chat.1).readResponse(timeout: .seconds(30)).text
      func words(_ text: String) -> String {
        text.components(separatedBy: "event: token\ndata: {\"t\":\"").dropFirst().map { $0.prefix { $0 != "\"" } }
          .joined()
      }
      #expect(words(first) == words(again) && words(first).utf8.count > 2_900_000)
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }
  }

  @Suite("Deleted session")
  struct DeletedSessionTests {
    private func send(_ sluice: Sluice, _ method: String) throws -> FastCGIClient {
      let client = try FastCGIClient(path: sluice.socket)
      client.send(FastCGIClient.request([("REQUEST_METHOD", method), ("REQUEST_URI", "/api/sessions/s")]))
      return client
    }

    @Test("A deletion is final and stops the session's streams, even one that creates it", arguments: [false, true])
    func running(isNew: Bool) async throws {
      let sluice = try await Sluice(["SLUICE_ECHO_GAP": "20ms"])
      if !isNew { #expect(try sluice.chat("before", session: "s").readResponse().text.contains("event: done")) }
      let client = try sluice.chat(String(repeating: "word ", count: 500), session: "s")
      #expect(client.waitUntilReadable())
      #expect(try send(sluice, "DELETE").readResponse().text.hasPrefix("Status: 204"))
      #expect(client.readResponse().text.contains("event: cancelled"))
      #expect(try send(sluice, "GET").readResponse().text.hasPrefix("Status: 404"))
      #expect(try send(sluice, "DELETE").readResponse().text.hasPrefix("Status: 404"))
      // The id can be used for a new session.
      #expect(try sluice.chat("after", session: "s").readResponse().text.contains("event: done"))
      #expect(try send(sluice, "GET").readResponse().text.contains("after"))
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("A deletion waits for a turn that is being stored, and deletes it too")
    func storing() async throws {
      let disk = try await DiskControl()
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_ECHO_GAP": "0"])
      try disk.set("hold", "sync", "sessions")
      let client = try sluice.chat("x", session: "s")
      #expect(await disk.waitUntilBlocked())
      let delete = try send(sluice, "DELETE")
      disk.clear("hold")
      #expect(delete.readResponse().text.hasPrefix("Status: 204"))
      #expect(client.readResponse().text.contains("event: "))
      #expect(try send(sluice, "GET").readResponse().text.hasPrefix("Status: 404"))
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("An unsaved turn does not recreate a deleted session")
    func unsaved() async throws {
      let disk = try await DiskControl()
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_ECHO_GAP": "0"])
      #expect(try sluice.chat("before", session: "s").readResponse().text.contains("event: done"))
      try disk.set("break", "sync", "sessions")
      #expect(try sluice.chat("x", session: "s").readResponse().text.contains("store_failed"))
      // Blocks the retry while it stores the turn.
      try disk.set("hold", "lock", "sessions")
      disk.clear("break")
      #expect(await disk.waitUntilBlocked())
      let delete = try send(sluice, "DELETE")
      disk.clear("hold")
      #expect(delete.readResponse().text.hasPrefix("Status: 204"))
      #expect(try send(sluice, "GET").readResponse().text.hasPrefix("Status: 404"))
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }
  }

  @Suite("Shutdown")
  struct ShutdownTests {
    @Test("A shutdown waits for a stream whose request already holds a slot")
    func late() async throws {
      let disk = try await DiskControl()
      let sluice = try await Sluice(["LD_PRELOAD": disk.library, "SLUICE_ECHO_GAP": "10ms"])
      try disk.set("hold", "lock", "messages")
      let client = try sluice.chat(String(repeating: "word ", count: 150))
      #expect(await disk.waitUntilBlocked())
      sluice.program.signal(SIGTERM)
      #expect(await eventually { !sluice.program.log("draining").isEmpty })
      disk.clear("hold")
      #expect(client.readResponse(timeout: .seconds(20)).text.contains("event: done"))
      #expect(await sluice.program.exitCode() == 0)
    }
  }
}
