import EventLoop
import Foundation
import SluiceTesting
import Testing
import Upstream

@testable import Sluice

/// A generator that yields the ``Speech`` of the seed in the prompt's last message, with pauses.
private struct Speaker: Generator {
  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
    let seed = UInt64(prompt.messages.last?.content ?? "") ?? 0
    var random = SeededGenerator(seed: seed &+ 1)
    for delta in Speech(seed: seed).deltas {
      switch Int.random(in: 0..<3, using: &random) {
      case 0: try await Task.sleep(for: .microseconds(Int.random(in: 0...2000, using: &random)))
      case 1: await Task.yield()
      default: break
      }
      try await output.yield(delta.text)
    }
    return Completion(.stop)
  }
}

/// A reader whose connection is lost now and then, at any byte. It comes back with the id of the last record that it
/// has received whole.
private struct UnsteadyReader {
  let clients: [TestClient]
  let session: String
  let dialect: String
  var random: SeededGenerator
  /// The records received so far.
  private(set) var records: [Substring] = []
  private(set) var stream: String?
  private(set) var losses = 0

  init(_ clients: [TestClient], session: String, dialect: String, seed: UInt64) {
    self.clients = clients
    self.session = session
    self.dialect = dialect
    random = SeededGenerator(seed: seed)
  }

  /// The id of the last record.
  private var lastID: Substring? { records.last.flatMap { Self.id($0) } }

  static func id(_ record: Substring) -> Substring? {
    record.split(separator: "\n").first { $0.hasPrefix("id: ") }?.dropFirst(4)
  }

  /// Reads until the terminal record.
  ///
  /// - Parameter message: the message to post; nil to read the running stream of the session.
  mutating func read(posting message: String?) async throws {
    var message = message
    let end = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < end, lastID?.hasSuffix(".end") != true {
      let client = clients[Int.random(in: 0..<clients.count, using: &random)]
      let isLost = losses < 5 && Bool.random(using: &random)
      let delay = Duration.microseconds(Int.random(in: 0...3000, using: &random))
      let (method, path, headers, body) = request(message)
      let task = Task { try await client.send(method, path, headers: headers, body: body) }
      if isLost {
        try await Task.sleep(for: delay)
        task.cancel()
        losses += 1
      }
      let response = try await task.value
      // A POST whose client left before the head must not be repeated: it would be another message.
      message = nil
      // The stream has ended: its turn is in the session.
      if response.status == 204 { return }
      guard response.status == 200 else {
        // The stream has not begun.
        try await Task.sleep(for: .microseconds(200))
        continue
      }
      stream = response.headers["sluice-stream-id"]
      take(response.body, isLost: !response.isComplete)
    }
  }

  private func request(_ message: String?) -> (String, String, [String: String], JSON?) {
    if let message {
      return (
        "POST", "/api/chat?dialect=\(dialect)", [:], ["message": .string(message), "sessionId": .string(session)]
      )
    }
    guard let stream else { return ("GET", "/api/sessions/\(session)/stream?dialect=\(dialect)", [:], nil) }
    let headers = lastID.map { ["Last-Event-ID": String($0)] } ?? [:]
    return ("GET", "/api/streams/\(stream)?dialect=\(dialect)", headers, nil)
  }

  /// Returns the complete records of a body, without the comment after a head that was sent alone.
  static func records(of body: String) -> [Substring] {
    body.split(separator: "\n\n", omittingEmptySubsequences: false).dropLast().map { record in
      record.hasPrefix(":\n") ? record.dropFirst(2) : record
    }
  }

  private mutating func take(_ body: String, isLost: Bool) {
    var bytes = Array(body.utf8)
    if isLost { bytes.removeLast(Int.random(in: 0...bytes.count, using: &random)) }
    let text = String(decoding: bytes, as: UTF8.self)
    let more = Self.records(of: text)
    // Records without an id come at the start only, and come again with it.
    if lastID == nil { records = [] }
    records += more
  }
}

@Suite("Resumption")
struct ResumePropertyTests {
  @Test(
    "Readers that are cut off at any byte and come back receive what an undisturbed reader receives",
    arguments: [1, 2])
  func unsteadyReaders(loops: Int) async throws {
    let fixture = try InMemory(
      generator: Speaker(),
      [
        "SLUICE_RESUME": "1m", "SLUICE_MESSAGES_PER_HOUR": "0", "SLUICE_STREAMS_PER_USER": "0",
      ])
    let clients = [fixture.client] + (try (1..<loops).map { _ in try TestClient(fixture.application) })
    let dialects = ["events", "deltas", "chunks", "chat"]
    var (losses, read) = (0, 0)
    // Another 250 seeds for each number of loops.
    for seed in UInt64(loops * 250)..<UInt64(loops * 250 + 250) {
      let session = "s\(seed)"
      let readers = try await withThrowingTaskGroup(of: UnsteadyReader.self) { group in
        for index in UInt64(0)...(seed % 4) {
          var random = SeededGenerator(seed: seed &* 8 &+ index)
          let dialect = dialects.randomElement(using: &random) ?? "events"
          group.addTask {
            var reader = UnsteadyReader(clients, session: session, dialect: dialect, seed: seed &* 8 &+ index)
            try await reader.read(posting: index == 0 ? "\(seed)" : nil)
            return reader
          }
        }
        return try await group.reduce(into: [UnsteadyReader]()) { $0.append($1) }
      }
      // A reader that arrives after the end finds no running stream in its session.
      guard let stream = readers.lazy.compactMap(\.stream).first else { continue }
      read += 1
      for reader in readers where reader.stream != nil {
        let undisturbed = try await fixture.client.send("GET", "/api/streams/\(stream)?dialect=\(reader.dialect)")
        let expected = UnsteadyReader.records(of: undisturbed.body)
        #expect(reader.records.map { Array($0.utf8) } == expected.map { Array($0.utf8) }, "seed \(seed), \(reader)")
        let ends = reader.records.filter { UnsteadyReader.id($0)?.hasSuffix(".end") == true }
        #expect(ends.count == 1 && undisturbed.isComplete, "seed \(seed), \(reader.dialect): \(undisturbed.body)")
        losses += reader.losses
      }
      let turns = try await fixture.client.send("GET", "/api/sessions/\(session)").json?["turns"]
      guard case .array(let stored)? = turns, stored.count == 1 else {
        Issue.record("seed \(seed): \(String(describing: turns))")
        continue
      }
      let text = stored[0]["assistant"]?["content"]?.string ?? ""
      #expect(Array(text.unicodeScalars) == Array(Speech(seed: seed).text.unicodeScalars), "seed \(seed)")
    }
    #expect(read > 200, "\(read) streams were read")
    #expect(losses > 100, "the readers were cut off \(losses) times")
  }
}
