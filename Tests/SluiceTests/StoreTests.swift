import EventLoop
import Foundation
import JSON
import SluiceTesting
import Testing
import Upstream

@testable import Sluice

private func turn(_ number: Int, text: String = "ü \"x\"\n\u{2028}") -> Turn {
  Turn(
    id: "id-\(number)", at: "2026-01-01T00:00:00.000Z", user: "q\(number)", assistant: text,
    completion: Completion(.stop, usage: Usage(promptTokens: 1, completionTokens: 2, totalTokens: 3)), model: "m")
}

extension SessionFile {
  fileprivate func turns(newest limit: Int) throws -> [Turn] { try turns(Page(limit: limit)) ?? [] }
}

@Suite("Store reads")
struct StoreReadingTests {
  private func turn(_ number: Int, bytes: Int) -> Turn {
    Turn(
      id: "id-\(number)", at: "t", user: "u", assistant: String(repeating: "a", count: bytes), completion: .init(),
      model: nil)
  }

  @Test("A file that cannot be read is left out of a list and reported, and the others are listed")
  func unreadable() async throws {
    let directory = TemporaryDirectory()
    let skipped = Locked<[String]>([])
    let store = Store(root: directory.path, pool: BlockingPool()) { error in
      skipped.withLock { $0.append(error.description) }
    }
    let user = try #require(User("ada"))
    for id in ["one", "two"] { try store.appendIfAbsent(turn(1, bytes: 1), to: id, user: user) }
    let report = StoredReport(id: "r1", title: "T", at: "t", report: ["a": .integer(1)])
    try store.saveBlocking(report, of: user)
    for path in ["sessions/foreign.jsonl", "reports/r2.json"] {
      try FileManager.default.createDirectory(
        atPath: store.directory(of: user) + "/" + path, withIntermediateDirectories: false)
    }
    #expect(try await store.sessions(of: user, Page(limit: 2))?.map(\.id).sorted() == ["one", "two"])
    #expect(try await store.reports(of: user, Page(limit: 50)).count == 1)
    #expect(skipped.withLock(\.self).count == 2, "\(skipped.withLock(\.self))")
  }

  @Test("A page is limited in bytes as well as turns, and contains at least one turn")
  func bytes() throws {
    let directory = TemporaryDirectory()
    let file = SessionFile(path: directory.path + "/s.jsonl")
    for number in 0..<10 { try file.append(turn(number, bytes: 200_000)) }
    #expect(try file.turns(.history(turns: 50))?.map(\.id) == ["id-8", "id-9"])
    var page = Page(limit: 3, before: "id-5")
    page.maximumBytes = 1
    #expect(try file.turns(page)?.map(\.id) == ["id-4"])
    #expect(try file.turns(Page(before: "none"))?.isEmpty == true)
    #expect(try file.count() == 10)
  }

  @Test("A list of reports reads only the beginning of each file")
  func summaries() async throws {
    let directory = TemporaryDirectory()
    let store = Store(root: directory.path, pool: BlockingPool())
    let user = try #require(User("ada"))
    let title = String(repeating: "\u{1},\"report\":\u{1F3A7}", count: 10)
    let report = StoredReport(
      id: "r", title: title, at: "t", report: ["a": .string(String(repeating: "x", count: 100_000))])
    try await store.save(report, of: user)
    #expect(try await store.reports(of: user, Page()) == [["id": "r", "title": .string(title), "at": "t"]])
    #expect(try await store.report("r", of: user)?.report == report.report)
    #expect(StoredReport.summary(of: Array(report.file.prefix(20))) == nil)
  }
}

@Suite("Session file")
struct SessionFileTests {
  private let directory = TemporaryDirectory()
  private var file: SessionFile { SessionFile(path: directory.path + "/s.jsonl") }
  private var text: String { (try? String(contentsOfFile: directory.path + "/s.jsonl", encoding: .utf8)) ?? "" }

  @Test("The file has one line per turn, returns turns unchanged, and is accessible only to its owner")
  func roundTrip() throws {
    for number in 0..<3 { try file.append(turn(number)) }
    #expect(text.split(separator: "\n").count == 3)
    #expect(try file.turns(newest: 10) == (0..<3).map { turn($0) })
    let mode = try FileManager.default.attributesOfItem(atPath: file.path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
  }

  @Test("The newest turns are returned oldest first, even across block boundaries", arguments: [10, 5000, 70_000])
  func newest(bytes: Int) throws {
    let long = String(repeating: "é", count: bytes / 2)
    for number in 0..<12 { try file.append(turn(number, text: long)) }
    #expect(try file.turns(newest: 5).map(\.id) == (7..<12).map { "id-\($0)" })
    #expect(try file.turns(newest: 0).isEmpty)
    #expect(try file.turns(newest: 100).count == 12)
  }

  @Test("A missing file has no turns")
  func missing() throws {
    #expect(try file.turns(newest: 5).isEmpty)
  }

  @Test("A torn last line loses only that line, and the next append removes it")
  func tornTail() throws {
    try file.append(turn(0))
    try file.append(turn(1))
    let complete = Array(text.utf8)
    let firstEnd = turn(0).line(number: 1).count
    for cut in firstEnd..<complete.count {
      try Data(complete[..<cut]).write(to: URL(fileURLWithPath: file.path))
      #expect(try file.turns(newest: 5).map(\.id) == ["id-0"], "cut at \(cut)")
      try file.append(turn(2))
      #expect(try file.turns(newest: 5).map(\.id) == ["id-0", "id-2"], "cut at \(cut)")
    }
  }

  @Test("Appending the last turn again does not store it twice")
  func again() throws {
    try file.append(turn(0))
    try file.append(turn(1))
    try file.append(turn(1))
    #expect(try file.turns(newest: 5).map(\.id) == ["id-0", "id-1"])
  }

  @Test(
    "A turn that is stored before later turns is not appended again, and the last line contains the number of turns")
  func ifAbsent() throws {
    for number in 0..<20 { try file.append(turn(number), ifAbsent: true) }
    for number in 0..<20 { try file.append(turn(number), ifAbsent: true) }
    #expect(try file.turns(newest: 100).count == 20 && file.count() == 20)
    #expect(text.hasSuffix(",\"turn\":20}\n"))
    // Message text that looks like the number is not mistaken for it, and lines without a number are counted.
    let misleading = Turn(
      id: "x", at: "t", user: "u", assistant: ",\"turn\":7}", completion: .init(), model: ",\"turn\":9")
    try Data(misleading.line() + misleading.line()).write(to: URL(fileURLWithPath: file.path))
    #expect(try file.count() == 2)
    try file.append(turn(3))
    #expect(try file.count() == 3)
  }

  @Test("An append without permission to create does not create a missing file")
  func creates() throws {
    #expect(try !file.append(turn(0), creates: false))
    #expect(!FileManager.default.fileExists(atPath: file.path))
    try file.append(turn(0))
    #expect(try file.append(turn(1), creates: false))
    #expect(try file.turns(newest: 5).map(\.id) == ["id-0", "id-1"])
  }

  @Test("Concurrent writers append complete turns, each once")
  func concurrency() async throws {
    let file = file
    await withTaskGroup { group in
      for writer in 0..<8 {
        group.addTask { for number in 0..<25 { _ = try? file.append(turn(writer * 100 + number)) } }
      }
    }
    let ids = try file.turns(newest: 1000).map(\.id)
    #expect(ids.count == 200 && Set(ids).count == 200)
  }

  @Test("A removed file is created again by the next append")
  func removed() throws {
    try file.append(turn(0))
    try FileManager.default.removeItem(atPath: file.path)
    try file.append(turn(1))
    #expect(try file.turns(newest: 5).map(\.id) == ["id-1"])
  }
}

@Suite("Store directories")
struct DirectoryTests {
  private let directory = TemporaryDirectory()

  @Test("Directories are created with their parents, accessible only to their owner")
  func made() throws {
    try createDirectories(directory.path + "/a/b/c")
    let mode = try FileManager.default.attributesOfItem(atPath: directory.path + "/a/b/c")[.posixPermissions] as? Int
    #expect(mode == 0o700)
    try createDirectories(directory.path + "/a/b/c")
  }

  @Test("Creating a directory below a file or a dangling link is an error")
  func impossible() throws {
    let file = directory.file("file", "")
    try FileManager.default.createSymbolicLink(
      atPath: directory.path + "/link", withDestinationPath: directory.path + "/nothing/here")
    for path in [file + "/a", directory.path + "/link/a/b"] {
      #expect(throws: SystemError.self, "\(path)") { try createDirectories(path) }
    }
  }
}

@Suite("Names")
struct NameTests {
  @Test("User names become unique directory names without dots and slashes")
  func users() throws {
    #expect(User("alice@example.com")?.directoryName == "alice%40example%2Ecom")
    #expect(User("..")?.directoryName == "%2E%2E")
    #expect(User("a/b")?.directoryName == "a%2Fb")
    #expect(User("é%")?.directoryName == "%C3%A9%25")
    #expect(User("") == nil)
    #expect(User(String(repeating: "a", count: 255)) != nil)
    #expect(User(String(repeating: "a", count: 256)) == nil)
    #expect(User(String(repeating: "/", count: 86)) == nil)
  }

  @Test(
    "Session ids are valid only in the documented form",
    arguments: [
      ("a-B_9", true), ("", false), ("a.b", false), ("../x", false), (String(repeating: "a", count: 65), false),
      ("é", false),
    ])
  func sessions(name: String, isValid: Bool) {
    #expect(Identifier.isValid(name) == isValid)
  }

  @Test("Generated ids are unique UUIDs of version 7 that sort by time")
  func identifiers() throws {
    let ids = (0..<1000).map { _ in Identifier.make() }
    #expect(Set(ids).count == 1000)
    for id in ids {
      #expect(UUID(uuidString: id) != nil && id.dropFirst(14).first == "7", "\(id)")
    }
    #expect(ids.map { $0.prefix(13) } == ids.map { $0.prefix(13) }.sorted())
  }

  @Test("A path placeholder matches exactly one non-empty segment")
  func paths() {
    let pattern: PathPattern = "/api/streams/{id}"
    #expect(pattern.match(RequestPath("/api/streams/x", maximumSegments: 9)) == ["id": "x"])
    #expect(pattern.match(RequestPath("/api/streams/", maximumSegments: 9)) == nil)
    #expect(pattern.match(RequestPath("/api/streams/x/", maximumSegments: 9)) == nil)
    #expect(pattern.match(RequestPath("/api/streams", maximumSegments: 9)) == nil)
  }
}

@Suite("Unsaved turns")
struct UnsavedTurnsTests {
  private let directory = TemporaryDirectory()

  private func turn(_ id: String) -> Turn {
    Turn(id: id, at: "t", user: "u", assistant: id, completion: .init(), model: nil)
  }

  private func unsaved(_ store: Store) -> UnsavedTurns {
    UnsavedTurns(store, directory: directory.path + "/unsaved", log: Log(level: .error, descriptor: -1))
  }

  @Test("Unsaved turns do not delay each other, are stored once, and are not stored after they are discarded")
  func retrying() async throws {
    let store = Store(root: directory.path + "/state", pool: BlockingPool())
    let (ada, eve) = (try #require(User("ada")), try #require(User("eve")))
    let unsaved = unsaved(store)
    // A directory in the place of the session's file makes every append fail.
    let blocked = directory.path + "/state/users/ada/sessions/s1.jsonl"
    try FileManager.default.createDirectory(atPath: blocked, withIntermediateDirectories: true)
    unsaved.add(.turn(turn("a"), session: "s1"), of: ada)
    unsaved.add(.turn(turn("b"), session: "s2"), of: ada)
    unsaved.add(.turn(turn("c"), session: "s3"), of: ada)
    unsaved.add(.turn(turn("d"), session: "s3"), of: eve)
    unsaved.discard(session: "s3", of: ada)
    #expect(unsaved.retry() == 1)
    #expect(try await store.turns(of: "s2", of: ada, Page())?.map(\.id) == ["b"])
    #expect(try await store.turns(of: "s3", of: ada, Page()) == nil)
    #expect(try await store.turns(of: "s3", of: eve, Page())?.map(\.id) == ["d"])

    // The next process retains the turn until it can be stored, and then removes its file.
    unsaved.persist()
    let next = self.unsaved(store)
    next.restore()
    let files = { try FileManager.default.contentsOfDirectory(atPath: directory.path + "/unsaved") }
    #expect(try next.count == 1 && files().count == 1)
    next.persist()
    #expect(try files().count == 1)
    try FileManager.default.removeItem(atPath: blocked)
    #expect(next.retry() == 0)
    #expect(try files().isEmpty)
    #expect(try await store.turns(of: "s1", of: ada, Page())?.map(\.id) == ["a"])
    // The first process still retains the turn, but does not store it a second time.
    #expect(unsaved.retry() == 0)
    #expect(try await store.turns(of: "s1", of: ada, Page())?.count == 1)

    unsaved.add(.turn(turn("e"), session: "s4"), of: ada)
    unsaved.discard(session: "s4", of: ada)
    #expect(unsaved.count == 0)
  }

  @Test("A turn that is stored late becomes the response to its Idempotency-Key, even after a restart")
  func keys() async throws {
    let store = Store(root: directory.path + "/state", pool: BlockingPool())
    let ada = try #require(User("ada"))
    for isRestarted in [false, true] {
      let key = "key-\(isRestarted)"
      var unsaved = unsaved(store)
      guard case .acquired(let lock) = try await store.acquireIdempotencyKey(of: key, request: "r", by: "s", ada)
      else {
        Issue.record("not free")
        return
      }
      let turn = turn("t-\(isRestarted)")
      let replay = Replay(
        request: "r", messageID: turn.id, text: turn.assistant.content,
        result: GenerationResult(messageID: turn.id, sessionID: "s", completedAt: turn.at, completion: turn.completion),
        user: turn.user.content)
      unsaved.add(.turn(turn, session: "s"), of: ada, replay: replay, idempotencyLock: lock)
      #expect(unsaved.contains(key: key, of: ada) && !unsaved.contains(key: "other", of: ada))
      // The key stays locked: releasing the lock has no effect while the turn is unsaved.
      await store.release(lock)
      guard case .inProgress = try await store.acquireIdempotencyKey(of: key, request: "r", by: "s2", ada) else {
        Issue.record("not running")
        return
      }
      #expect(unsaved.store(key: "other", of: ada))
      if isRestarted {
        let blocked = directory.path + "/state/users/ada/sessions"
        try FileManager.default.moveItem(atPath: blocked, toPath: blocked + "2")
        _ = directory.file("state/users/ada/sessions", "no directory")
        #expect(!unsaved.store(key: key, of: ada))
        unsaved.persist()
        try FileManager.default.removeItem(atPath: blocked)
        try FileManager.default.moveItem(atPath: blocked + "2", toPath: blocked)
        unsaved = self.unsaved(store)
        unsaved.restore()
      } else {
        #expect(unsaved.store(key: key, of: ada))
      }
      #expect(unsaved.count == 0)
      guard case .completed(let kept) = try await store.acquireIdempotencyKey(of: key, request: "r", by: "s", ada)
      else {
        Issue.record("not complete")
        return
      }
      #expect(kept.turn == turn && kept.request == "r")
      _ = lock
    }
    #expect(try await store.turns(of: "s", of: ada, Page())?.map(\.id) == ["t-false", "t-true"])
  }
}

@Suite("JWT keys")
struct JWTKeysTests {
  private let secret =
    #"{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#

  @Test("Unsupported keys of a set are ignored if at least one key is usable")
  func others() {
    let others =
      #"{"kty":"OKP","crv":"Ed25519","x":"x"},{"kty":"RSA","alg":"RS512","n":"x","e":"AQAB"},{"kty":"oct","k":"YQ"}"#
    let mixed = JWTKeys(parsing: Array("{\"keys\":[\(others),\(secret)]}".utf8))
    #expect(mixed.keys.count == 1 && mixed.issues.isEmpty && mixed.warnings.count == 3, "\(mixed)")
    for useless in [
      "{\"keys\":[\(others)]}", "{\"keys\":[]}", "{\"keys\":5}", "{", "{}", #"{"kty":"EC","crv":"P-521"}"#,
    ] {
      #expect(!JWTKeys(parsing: Array(useless.utf8)).issues.isEmpty, "\(useless)")
    }
    let encrypting = secret.replacing("{", with: "{\"use\":\"enc\",")
    #expect(!JWTKeys(parsing: Array("{\"keys\":[\(encrypting)]}".utf8)).issues.isEmpty)
  }

  @Test("A bare secret can contain any bytes, and must have at least 32")
  func secrets() {
    let bytes = Array(UInt8(0x80)...0x9F)
    #expect(JWTKeys(parsing: bytes).keys.count == 1)
    #expect(JWTKeys(parsing: bytes + [0x0A]).keys.count == 1)
    #expect(!JWTKeys(parsing: Array(repeating: 0xFF, count: 31) + [0x0A]).issues.isEmpty)
  }
}
