import EventLoop
import EventStream
import Foundation
import JSON
import SluiceTesting
import Synchronization
import Testing

/// A small in-memory file system (tmpfs(5)) that a test can fill or remount read-only.
final class SmallDisk: Sendable {
  let path: String

  init(size: String) async throws {
    path = FileManager.default.temporaryDirectory.path + "/sluice-disk-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    try await Self.run("/usr/bin/mount", ["-t", "tmpfs", "-o", "size=\(size)", "tmpfs", path])
  }

  func remount(_ mode: String) async throws {
    try await Self.run("/usr/bin/mount", ["-o", "remount,\(mode)", path])
  }

  /// Fills the file system completely.
  func fill() {
    let number = unsafe open(path + "/filler", O_WRONLY | O_CREAT, 0o600)
    let block = [UInt8](repeating: 1, count: 4096)
    while unsafe write(number, block, block.count) > 0 {}
    close(number)
  }

  func empty() { unsafe unlink(path + "/filler") }

  private static func run(_ program: String, _ arguments: [String]) async throws {
    let program = try Program(program, arguments)
    let code = await program.exitCode()
    try #require(code == 0, "\(program.errors)")
  }

  deinit {
    unsafe umount2(path, Int32(MNT_DETACH))
    unsafe rmdir(path)
  }
}

extension Integration {
  @Suite("Store faults")
  struct StoreFaultTests {
    /// Returns the turns of all sessions in a state directory.
    private func turns(_ state: String) -> [JSON] {
      let files = FileManager.default.enumerator(atPath: state)?.compactMap { $0 as? String } ?? []
      return files.filter { $0.hasSuffix(".jsonl") }.flatMap { file -> [JSON] in
        let text = (try? String(contentsOfFile: state + "/" + file, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").compactMap { try? JSON(parsing: Array($0.utf8)) }
      }
    }

    private func contents(_ state: String) -> [String] {
      turns(state).compactMap { $0["assistant"]?["content"]?.string }
    }

    @Test(
      "A full disk is reported as store_failed, leaves no partial turn, and stores the turn once there is space",
      .enabled(if: getuid() == 0))
    func fullDisk() async throws {
      let disk = try await SmallDisk(size: "256k")
      let sluice = try await Sluice([
        "SLUICE_STATE": disk.path, "SLUICE_MESSAGES_PER_HOUR": "0", "SLUICE_ECHO_GAP": "0",
      ])
      #expect(try sluice.chat("before", session: "s").readResponse().text.contains("event: done"))
      disk.fill()
      let long = String(repeating: "word ", count: 2000)
      let response = try sluice.chat(long, session: "s").readResponse().text
      #expect(
        response.contains("event: error") && response.contains("store_failed") && !response.contains("event: done"))
      #expect(contents(disk.path) == ["before"])
      disk.empty()
      #expect(await eventually(within: .seconds(30)) { contents(disk.path).count == 2 })
      #expect(contents(disk.path) == ["before", long])
      #expect(try sluice.chat("after", session: "s").readResponse().text.contains("event: done"))
      #expect(contents(disk.path) == ["before", long, "after"])
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test(
      "A turn that a read-only disk rejects is saved in the runtime directory and stored at the next start",
      .enabled(if: getuid() == 0))
    func readOnly() async throws {
      let disk = try await SmallDisk(size: "1m")
      // While the store is unavailable, messages are counted in memory: the limit of one allows one more.
      let environment = ["SLUICE_STATE": disk.path, "SLUICE_MESSAGES_PER_HOUR": "1", "SLUICE_ECHO_GAP": "0"]
      let runtime = FileManager.default.temporaryDirectory.path + "/sluice-runtime-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: runtime) }
      let first = try await Sluice(environment.merging(["RUNTIME_DIRECTORY": runtime]) { $1 })
      #expect(try first.chat("before").readResponse().text.contains("event: done"))
      try await disk.remount("ro")
      #expect(try first.chat("secret words").readResponse().text.contains("store_failed"))
      #expect(try first.chat("more").readResponse().text.contains("rate_limited"))
      first.program.signal(SIGTERM)
      #expect(await first.program.exitCode() == 0)
      let left = try FileManager.default.contentsOfDirectory(atPath: runtime + "/unsaved")
      #expect(left.count == 1)
      let mode = try FileManager.default.attributesOfItem(atPath: "\(runtime)/unsaved/\(left.first ?? "")")[
        .posixPermissions]
      #expect(mode as? Int == 0o600)
      // While the disk is read-only, the program does not start and the file remains.
      let second = try Program(
        releaseDirectory + "/sluice",
        environment: environment.merging(["RUNTIME_DIRECTORY": runtime, "SLUICE_AUTH": "none"]) { $1 })
      #expect(await second.exitCode() == 1)
      #expect(
        second.errors.contains("SLUICE_STATE is not usable as the store") && second.errors.contains("Read-only"),
        "\(second.errors)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: runtime + "/unsaved") == left)
      try await disk.remount("rw")
      let third = try await Sluice(environment.merging(["RUNTIME_DIRECTORY": runtime]) { $1 })
      #expect(await eventually { third.program.log("ready").count == 1 })
      #expect(contents(disk.path).sorted() == ["before", "secret words"])
      #expect(try FileManager.default.contentsOfDirectory(atPath: runtime + "/unsaved").isEmpty)
      third.program.signal(SIGTERM)
      #expect(await third.program.exitCode() == 0)
    }

    @Test("A turn that a CGI program could not store is stored by the next one", .enabled(if: getuid() == 0))
    func cgi() async throws {
      let disk = try await SmallDisk(size: "1m")
      let runtime = FileManager.default.temporaryDirectory.path + "/sluice-runtime-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: runtime) }
      func send(_ message: String) async throws -> String {
        let body = "{\"message\":\"\(message)\"}"
        let program = try Program(
          releaseDirectory + "/sluice",
          environment: [
            "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "POST", "REQUEST_URI": "/api/chat", "SLUICE_AUTH": "none",
            "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "\(body.utf8.count)", "SLUICE_STATE": disk.path,
            "SLUICE_ECHO_GAP": "0", "RUNTIME_DIRECTORY": runtime, "SLUICE_STREAMS_PER_USER": "0",
            "SLUICE_MAX_STREAMS": "0",
            "SLUICE_MESSAGES_PER_HOUR": "0",
          ], input: body)
        _ = await program.exitCode()
        return program.output
      }
      #expect(try await send("one").contains("event: done"))
      // The store exists, but its sessions directory is a dangling link, so no turn can be written.
      let sessions = disk.path + "/users/anonymous/sessions"
      try FileManager.default.moveItem(atPath: sessions, toPath: sessions + "-away")
      try FileManager.default.createSymbolicLink(atPath: sessions, withDestinationPath: "/nowhere/at/all")
      #expect(try await send("two").contains("store_failed"))
      try FileManager.default.removeItem(atPath: sessions)
      try FileManager.default.moveItem(atPath: sessions + "-away", toPath: sessions)
      #expect(try await send("three").contains("event: done"))
      #expect(contents(disk.path).sorted() == ["one", "three", "two"])
    }

    @Test("A failed sync is reported as store_failed, and the turn is stored once when syncing works again")
    func failedSync() async throws {
      let directory = FileManager.default.temporaryDirectory.path + "/sluice-sync-\(UUID().uuidString)"
      try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: directory) }
      // Replaces the C library's fdatasync with one that fails as long as the file "broken" exists.
      try """
      #include <errno.h>
      #include <unistd.h>
      #include <sys/syscall.h>
      int fdatasync(int file) {
        if (access("\(directory)/broken", F_OK) == 0) { errno = EIO; return -1; }
        return syscall(SYS_fdatasync, file);
      }
      """.write(toFile: directory + "/sync.c", atomically: true, encoding: .utf8)
      let compiler = try Program(
        "/usr/bin/env", ["clang", "-shared", "-fPIC", "-o", directory + "/sync.so", directory + "/sync.c"])
      #expect(await compiler.exitCode() == 0, "\(compiler.errors)")
      let sluice = try await Sluice(["LD_PRELOAD": directory + "/sync.so", "SLUICE_ECHO_GAP": "0"])
      try "".write(toFile: directory + "/broken", atomically: true, encoding: .utf8)
      #expect(try sluice.chat("one", session: "s").readResponse().text.contains("store_failed"))
      #expect(contents(sluice.directory + "/state").isEmpty)
      try FileManager.default.removeItem(atPath: directory + "/broken")
      #expect(await eventually(within: .seconds(30)) { contents(sluice.directory + "/state") == ["one"] })
      #expect(try sluice.chat("two", session: "s").readResponse().text.contains("event: done"))
      #expect(contents(sluice.directory + "/state") == ["one", "two"])
      sluice.program.signal(SIGTERM)
      #expect(await sluice.program.exitCode() == 0)
    }

    @Test("After a kill at any moment, every turn reported as done is stored once, and no turn is partial")
    func killed() async throws {
      let state = FileManager.default.temporaryDirectory.path + "/sluice-killed-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: state) }
      var seen: Set<String> = []
      for round in 0..<6 {
        let sluice = try await Sluice([
          "SLUICE_STATE": state, "SLUICE_ECHO_GAP": "1ms", "SLUICE_STREAMS_PER_USER": "0",
          "SLUICE_MESSAGES_PER_HOUR": "0",
        ])
        let clients = try (0..<200).map { try sluice.chat("round \(round) stream \($0)", session: "s\($0 % 5)") }
        // By then, some streams have ended and the others are running.
        #expect(await eventually { sluice.program.log("stream ended").count >= 10 + 30 * round })
        sluice.program.signal(SIGKILL)
        for client in clients {
          let text = client.readResponse().text
          guard let data = text.components(separatedBy: "event: done\ndata: ").dropFirst().first else { continue }
          let json = try JSON(parsing: Array((data.split(separator: "\n").first ?? "").utf8))
          seen.insert(json["messageId"]?.string ?? "?")
        }
        _ = await sluice.program.exitCode()
      }
      let stored = turns(state)
      let ids = stored.compactMap { $0["id"]?.string }
      #expect(
        seen.count > 100 && Set(ids).count == ids.count && seen.isSubset(of: ids),
        "\(seen.count) seen, \(ids.count) stored")
      for turn in stored { #expect(turn["assistant"]?["content"] == turn["user"]?["content"]) }
    }

    @Test("Two processes that write to one session of a shared store lose no turns")
    func twoProcesses() async throws {
      let state = FileManager.default.temporaryDirectory.path + "/sluice-two-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: state) }
      let environment = [
        "SLUICE_STATE": state, "SLUICE_ECHO_GAP": "0", "SLUICE_STREAMS_PER_USER": "0",
        "SLUICE_MESSAGES_PER_HOUR": "150",
      ]
      let both = [try await Sluice(environment), try await Sluice(environment)]
      let clients = try (0..<200).map { try both[$0 % 2].chat("stream \($0)", session: "s") }
      let responses = clients.map { $0.readResponse().text }
      // Both processes share the hourly message limit.
      #expect(responses.count { $0.contains("event: done") } == 150)
      #expect(responses.count { $0.contains("rate_limited") } == 50)
      #expect(Set(contents(state)).count == 150)
      for sluice in both {
        sluice.program.signal(SIGTERM)
        #expect(await sluice.program.exitCode() == 0)
      }
    }

    @Test("CGI programs share the stream limits, and a killed program releases its slot")
    func cgiLimits() async throws {
      let state = FileManager.default.temporaryDirectory.path + "/sluice-cgi-\(UUID().uuidString)"
      defer { try? FileManager.default.removeItem(atPath: state) }
      func send(_ words: Int) throws -> Program {
        let body = "{\"message\":\"\(String(repeating: "word ", count: words))\"}"
        return try Program(
          releaseDirectory + "/sluice",
          environment: [
            "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_METHOD": "POST", "REQUEST_URI": "/api/chat", "SLUICE_AUTH": "none",
            "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "\(body.utf8.count)", "SLUICE_STATE": state,
            "SLUICE_ECHO_GAP": "20ms", "SLUICE_STREAMS_PER_USER": "3", "SLUICE_LOG": "error",
          ], input: body)
      }
      let running = try (0..<3).map { _ in try send(1000) }
      for program in running { #expect(await eventually { program.output.contains("event: token") }) }
      let fourth = try send(1)
      _ = await fourth.exitCode()
      #expect(fourth.output.hasPrefix("Status: 429") && fourth.output.contains("too_many_streams"), "\(fourth.output)")
      running[1].signal(SIGKILL)
      _ = await running[1].exitCode()
      let fifth = try send(1)
      _ = await fifth.exitCode()
      #expect(fifth.output.contains("event: done"), "\(fifth.output)")
      for program in running { program.signal(SIGKILL) }
    }
  }
}
