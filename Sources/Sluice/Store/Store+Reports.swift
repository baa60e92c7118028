import EventLoop
import Glibc
import JSON

/// A report that is kept: a file of its own.
struct StoredReport: Sendable {
  let id: String
  let title: String?
  /// When it was stored (RFC 3339, UTC).
  let at: String
  let report: JSON

  /// What a list shows of it.
  var summary: JSON { .object(head) }

  /// All of it, as a client gets it.
  var json: JSON {
    var members = head
    members["report"] = report
    return .object(members)
  }

  private var head: JSON.Members {
    ["id": .string(id), "title": title.map(JSON.string) ?? .null, "at": .string(at)]
  }

  var file: [UInt8] {
    var members: JSON.Members = ["v": .integer(1)]
    for member in head.all { members[member.name] = member.value }
    members["report"] = report
    return JSON.object(members).encoded + [0x0A]
  }

  init(id: String, title: String?, at: String, report: JSON) {
    self.id = id
    self.title = title
    self.at = at
    self.report = report
  }

  /// The same by the rules of today: those of its time may have let something through.
  func redacted(by rules: [RedactionRules.Rule]) throws(Failure) -> StoredReport {
    StoredReport(id: id, title: title, at: at, report: try Redactor.redact(report, by: rules))
  }

  /// More than id, title and time take at the beginning of a file.
  static let maximumHeadBytes = 4096

  /// What a list shows of the report whose file begins so; what it says is not looked at. Nil when it is none of ours.
  static func summary(of beginning: [UInt8]) -> JSON? {
    // No string before it holds a quote that is not escaped.
    guard let end = beginning.firstRange(of: Array(#","report":"#.utf8)) else { return nil }
    let head = Array(beginning[..<end.lowerBound]) + Array(#","report":{}}"#.utf8)
    return StoredReport(file: head)?.summary
  }

  /// Nil when the file is not a report of ours.
  init?(file: [UInt8]) {
    guard let json = try? JSON(parsing: file, depth: JSON.maximumDepth + 1), let id = json["id"]?.string,
      let at = json["at"]?.string,
      let report = json["report"]
    else { return nil }
    self.init(id: id, title: json["title"]?.string, at: at, report: report)
  }
}

/// Reports: `reports/RID.json`.
extension Store {
  func save(_ report: StoredReport, of user: User) async throws(SystemError) {
    try await retrying { () throws(SystemError) in try saveNow(report, of: user) }
  }

  /// Saves a report. Blocks.
  func saveNow(_ report: StoredReport, of user: User) throws(SystemError) {
    let directory = reports(of: user)
    try createDirectories(directory)
    try replaceFile("\(directory)/\(report.id).json", with: report.file)
  }

  /// Saves a report, unless it is there.
  func saveIfAbsent(_ report: StoredReport, of user: User) async throws(SystemError) {
    let path = "\(reports(of: user))/\(report.id).json"
    if await pool.run({ unsafe access(path, F_OK) == 0 }) { return }
    try await save(report, of: user)
  }

  /// Nil when the user has no such report.
  func report(_ id: String, of user: User) async throws(SystemError) -> StoredReport? {
    let path = "\(reports(of: user))/\(id).json"
    return try await pool.run { () throws(SystemError) in
      do throws(SystemError) { return StoredReport(file: try readFile(path)) } catch {
        if error.code == ENOENT { return nil }
        throw error
      }
    }
  }

  /// The user's reports, newest first. A page goes on after the report named in it.
  func reports(of user: User, _ page: Page) async throws(SystemError) -> [JSON] {
    let directory = reports(of: user)
    return try await pool.run { () throws(SystemError) in
      // Their ids begin with the time.
      let names = try fileNames(in: directory).filter { $0.hasSuffix(".json") }.sorted(by: >)
      var reports: [JSON] = []
      for name in names where page.before.map({ name < $0 + ".json" }) ?? true {
        if reports.count == page.limit { break }
        let beginning = try readFile("\(directory)/\(name)", maximumBytes: StoredReport.maximumHeadBytes)
        if let summary = StoredReport.summary(of: beginning) { reports.append(summary) }
      }
      return reports
    }
  }

  private func reports(of user: User) -> String { directory(of: user) + "/reports" }
}
