import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Commands on the store")
  struct StoreCommandTests {
    private let directory = TemporaryDirectory()
    private var users: String { directory.path + "/users" }

    private func write(_ path: String, _ text: String) throws {
      let path = users + "/" + path
      try FileManager.default.createDirectory(
        atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
      try text.write(toFile: path, atomically: true, encoding: .utf8)
    }

    private func exists(_ path: String) -> Bool { FileManager.default.fileExists(atPath: users + "/" + path) }

    /// Stores a session of two turns, of which the newest is from the day `date`.
    private func session(_ path: String, _ date: String) throws {
      let turns = ["2019-01-01", date].map {
        #"{"v":1,"id":"\#($0)","at":"\#($0)T00:00:00.000Z","user":{"content":"a"},"assistant":{"content":"b"}}"#
      }
      try write(path, turns.joined(separator: "\n") + "\n")
    }

    private func report(_ path: String, _ date: String) throws {
      try write(path, #"{"v":1,"id":"r","title":null,"at":"\#(date)T00:00:00.000Z","report":{"a":1}}"# + "\n")
    }

    private func run(_ arguments: String..., input: String? = nil) async throws -> (
      code: Int32?, output: String, errors: String
    ) {
      let program = try Program(
        releaseDirectory + "/sluice", arguments, environment: ["SLUICE_STATE": directory.path], input: input)
      let code = await program.exitCode()
      return (code, program.output, program.errors)
    }

    @Test("\"sluice prune\" removes old sessions as a whole, and old reports, of all users or of one")
    func prune() async throws {
      let today = String(Date().ISO8601Format().prefix(10))
      for user in ["ann", "bob%40x"] {
        try session("\(user)/sessions/old.jsonl", "2020-01-01")
        try session("\(user)/sessions/new.jsonl", today)
        try report("\(user)/reports/old.json", "2020-01-01")
        try report("\(user)/reports/new.json", today)
        try write("\(user)/onboarding.json", "{}")
      }
      // A torn last line is no turn, and a foreign file is no report.
      try write("ann/sessions/torn.jsonl", #"{"v":1,"id":"x","at":"2020-01-01"#)
      try write("ann/reports/foreign.json", "text")
      let dry = try await run("prune", "--older-than", "90d", "--dry-run")
      #expect(dry.code == 0 && dry.output.hasPrefix("would remove 2 sessions and 2 reports ("), "\(dry)")
      #expect(exists("ann/sessions/old.jsonl"))
      let one = try await run("prune", "--older-than=90d", "--user", "bob@x", "--json")
      let object = try JSONSerialization.jsonObject(with: Data(one.output.utf8)) as? [String: Any]
      #expect(object?["sessions"] as? Int == 1 && object?["reports"] as? Int == 1, "\(one)")
      #expect(object?["dryRun"] as? Bool == false && (object?["bytes"] as? Int ?? 0) > 200, "\(one)")
      #expect(!exists("bob%40x/sessions/old.jsonl") && !exists("bob%40x/reports/old.json"))
      #expect(exists("bob%40x/sessions/new.jsonl") && exists("bob%40x/onboarding.json"))
      let all = try await run("prune", "--older-than", "90d")
      #expect(all.output.hasPrefix("removed 1 sessions and 1 reports ("), "\(all)")
      #expect(
        exists("ann/sessions/new.jsonl") && exists("ann/sessions/torn.jsonl") && exists("ann/reports/foreign.json"))
    }

    @Test("\"sluice export\" writes the user's folder as a tar archive, and forget removes it")
    func user() async throws {
      try session("ann/sessions/s.jsonl", "2020-01-01")
      try report("ann/reports/r.json", "2020-01-01")
      try session("bob/sessions/s.jsonl", "2020-01-01")
      let copy = directory.path + "/copy"
      try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
      let shell = try Program(
        "/bin/sh",
        ["-c", "\"$SLUICE\" export ann > '\(copy)/ann.tar' && tar -C '\(copy)' -xf '\(copy)/ann.tar'"],
        environment: ["SLUICE_STATE": directory.path, "SLUICE": releaseDirectory + "/sluice"])
      #expect(await shell.exitCode() == 0, "\(shell.errors)")
      #expect(shell.errors == "sluice: exported what is stored of ann\n")
      for file in ["ann/sessions/s.jsonl", "ann/reports/r.json"] {
        #expect(FileManager.default.contentsEqual(atPath: "\(users)/\(file)", andPath: "\(copy)/\(file)"), "\(file)")
      }
      let unconfirmed = try await run("forget", "ann", input: "")
      #expect(unconfirmed.code == 2 && unconfirmed.errors.contains("--yes") && exists("ann"), "\(unconfirmed)")
      let forgotten = try await run("forget", "ann", "--yes")
      #expect(forgotten.output.hasPrefix("removed 1 sessions and 1 reports (") && forgotten.code == 0, "\(forgotten)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: users) == ["bob"])
      let again = try await run("forget", "ann", "--yes")
      #expect(again.code == 1 && again.errors.contains("has no user \"ann\""), "\(again)")
    }

    @Test("What is none of the store's files is passed over, and the rest is pruned")
    func foreign() async throws {
      try session("ann/sessions/old.jsonl", "2020-01-01")
      try session("zoe/sessions/old.jsonl", "2020-01-01")
      try write("file", "text")
      try write("bob/sessions", "no directory")
      try FileManager.default.createDirectory(
        atPath: users + "/carl/sessions/directory.jsonl", withIntermediateDirectories: true)
      try write("carl/reports/x.txt", "")
      try FileManager.default.createSymbolicLink(
        atPath: users + "/carl/reports/dangling.json", withDestinationPath: "/nowhere")
      #expect(unsafe mkfifo(users + "/carl/reports/pipe.json", 0o600) == 0)
      let pruned = try await run("prune", "--older-than", "90d")
      #expect(pruned.code == 1 && pruned.output.hasPrefix("removed 2 sessions and 0 reports"), "\(pruned)")
      #expect(pruned.errors.contains("bob/sessions") && pruned.errors.split(separator: "\n").count == 1, "\(pruned)")
    }

    @Test("What an interrupted forget has left is removed by the next one")
    func interrupted() async throws {
      try session(".01a22b75-ea40-753f-94c2-7b12345d9e91/sessions/s.jsonl", "2020-01-01")
      try session("ann/sessions/s.jsonl", "2020-01-01")
      let again = try await run("forget", "zoe", "--yes")
      #expect(again.code == 0 && again.output.hasPrefix("removed 1 sessions"), "\(again)")
      #expect(try FileManager.default.contentsOfDirectory(atPath: users) == ["ann"])
    }

    @Test("A store without users is empty, not wrong")
    func empty() async throws {
      let pruned = try await run("prune", "--older-than", "90d")
      #expect(pruned.code == 0 && pruned.output.hasPrefix("removed 0 sessions"), "\(pruned)")
    }

    @Test("A wrong call exits with 2 and names the argument; a store that cannot be used exits with 1")
    func wrongCalls() async throws {
      let calls = [
        ["prune"], ["prune", "--older-than"], ["prune", "--older-than", "soon"],
        ["prune", "--older-than", "1d", "ann"],
        ["export"], ["export", "--json"], ["forget", "--yes"], ["forget", "ann", "bob", "--yes"], ["--version", "x"],
        ["token"], ["token", "-h"], ["unknown"], ["--unknown"], ["prune", "--older-than", "1d", "--force"],
      ]
      for call in calls {
        let program = try Program(
          releaseDirectory + "/sluice", call, environment: ["SLUICE_STATE": "/nowhere"], input: "")
        #expect(await program.exitCode() == 2, "\(call): \(program.errors)")
        #expect(program.errors.hasPrefix("sluice: ") && program.output.isEmpty, "\(call): \(program.errors)")
      }
      for call in [["prune", "--older-than", "1d"], ["forget", "ann", "--yes"], ["export", "ann"]] {
        let program = try Program(releaseDirectory + "/sluice", call, environment: ["SLUICE_STATE": "/nowhere"])
        #expect(await program.exitCode() == 1 && program.errors.contains("/nowhere"), "\(program.errors)")
      }
    }

    @Test("A session that is pruned or forgotten beside a running service is gone there at once")
    func besideService() async throws {
      let sluice = try await Sluice(["SLUICE_STATE": directory.path, "SLUICE_ECHO_GAP": "0"])
      for session in ["one", "two"] {
        #expect(try sluice.chat("a b", session: session).readResponse().text.contains("event: done"))
      }
      let removed = try await run("prune", "--older-than", "0")
      #expect(removed.output.hasPrefix("removed 2 sessions"), "\(removed)")
      let list = try FastCGIClient(path: sluice.socket)
      list.send(FastCGIClient.request([("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/api/sessions")]))
      #expect(list.readResponse().text.contains(#""sessions":[]"#))
      #expect(try sluice.chat("a b", session: "one").readResponse().text.contains("event: done"))
      #expect(try await run("forget", "anonymous", "--yes").code == 0)
      #expect(try sluice.chat("a b", session: "one").readResponse().text.contains("event: done"))
      #expect(exists("anonymous/sessions/one.jsonl"))
    }

    @Test("--version names the libraries")
    func version() async throws {
      let (code, output, _) = try await run("--version")
      let lines = output.split(separator: "\n")
      #expect(code == 0 && lines.count == 5, "\(output)")
      for (line, name) in zip(lines, ["sluice ", "libfcgi.so.", "libcurl/", "simdjson ", "PCRE2 "]) {
        #expect(line.hasPrefix(name) && line.contains { $0.isNumber }, "\(line)")
      }
    }
  }
}
