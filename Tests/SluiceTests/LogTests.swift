import Glibc
import JSON
import SluiceTesting
import Testing

@testable import Sluice

@Suite("Log")
struct LogTests {
  @Test("A flood of one kind of line is limited, and its number is reported when it is over")
  func flood() {
    var limiter = LogLimiter()
    let start = ContinuousClock.now
    func admits(_ message: String, _ error: String, after seconds: Double = 0) -> Bool {
      limiter.admits(.info, message, ["error": .string(error)], at: start + .seconds(seconds))
    }
    let admitted = (0..<1000).filter { _ in admits("request refused", "unauthorized") }.count
    #expect(admitted == LogLimiter.maximumLines)
    // Other kinds, and the lines of streams, are not affected.
    #expect(admits("request refused", "not_found") && admits("connection failed", "unauthorized"))
    #expect((0..<1000).allSatisfy { _ in admits("stream ended", "upstream_error") })
    #expect(limiter.takeFinished(at: start + .seconds(9)).isEmpty)
    let floods = limiter.takeFinished(at: start + .seconds(10))
    #expect(floods.map(\.suppressed) == [900])
    #expect(floods.first?.fields["of"] == "request refused" && floods.first?.fields["lines"] == .integer(900))
    #expect(limiter.takeFinished(at: start + .seconds(100)).isEmpty)
    #expect(admits("request refused", "unauthorized", after: 11))
  }

  @Test("A flood goes on until its number is reported, so no line is lost without being counted")
  func counted() {
    var limiter = LogLimiter()
    let start = ContinuousClock.now
    var written = 0
    var counted = 0
    for step in 0..<5000 {
      let now = start + .milliseconds(10 * step)
      if limiter.admits(.info, "a", [:], at: now) { written += 1 }
      if step % 100 == 0 { counted += limiter.takeFinished(at: now).reduce(0) { $0 + $1.suppressed } }
    }
    counted += limiter.takeAll().reduce(0) { $0 + $1.suppressed }
    #expect(written + counted == 5000 && written < 600, "\(written) \(counted)")
  }

  @Test("The memory of the limit is bounded")
  func bounded() {
    var limiter = LogLimiter()
    let start = ContinuousClock.now
    for index in 0..<10_000 {
      let isAdmitted = limiter.admits(.info, "kind \(index)", [:], at: start + .milliseconds(index))
      #expect(isAdmitted)
    }
    #expect(limiter.kinds <= LogLimiter.maximumKinds)
  }

  @Test("A log that is a pipe gets JSON lines, and one line with the number of those that were left out")
  func lines() throws {
    var ends: [CInt] = [0, 0]
    #expect(unsafe pipe(&ends) == 0)
    let log = Log(level: .info, descriptor: ends[1])
    for _ in 0..<150 { log.info("request refused", ["error": "not_found"]) }
    log.flush()
    close(ends[1])
    let text = String(decoding: try readFile("/proc/self/fd/\(ends[0])"), as: UTF8.self)
    close(ends[0])
    let lines = try text.split(separator: "\n").map { try JSON(parsing: Array($0.utf8)) }
    #expect(lines.count == 101 && lines.dropLast().allSatisfy { $0["message"] == "request refused" }, "\(text)")
    let last = try #require(lines.last)
    #expect(
      last["message"] == "log lines suppressed" && last["of"] == "request refused" && last["lines"] == .integer(50))
  }

  @Test("Fields of the journal have names that it accepts")
  func fieldNames() {
    #expect(JournalEntry.name(of: "stream") == "SLUICE_STREAM")
    #expect(JournalEntry.name(of: "firstTokenMs") == "SLUICE_FIRST_TOKEN_MS")
    #expect(JournalEntry.name(of: "correlationId") == "SLUICE_CORRELATION_ID")
  }
}
