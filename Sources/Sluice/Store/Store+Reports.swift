import EventLoop
import Glibc
import JSON

/// A stored report, in a file of its own.
struct StoredReport: Sendable {
  let id: String
  let title: String?
  /// The time at which the report was stored (RFC 3339, UTC).
  let at: String
  let report: JSON

  /// The members shown in a list.
  var summary: JSON { .object(head) }

  /// The complete report, as sent to clients.
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

  /// Returns the report redacted by the current rules, which may match text that earlier rules did not.
  func redacted(by rules: [RedactionRules.Rule]) throws(Failure) -> StoredReport {
    StoredReport(id: id, title: title, at: at, report: try Redactor.redact(report, by: rules))
  }

  /// An upper bound for the size of id, title and time at the beginning of a file.
  static let maximumHeadBytes = 4096

  /// Returns the list entry of a report from the beginning of its file, without parsing the content. Returns nil if
  /// the file has another format.
  static func summary(of beginning: [UInt8]) -> JSON? {
    // Quotes within strings are escaped, so the first match is the member itself.
    guard let end = beginning.firstRange(of: Array(#","report":"#.utf8)) else { return nil }
    let head = Array(beginning[..<end.lowerBound]) + Array(#","report":{}}"#.utf8)
    return StoredReport(file: head)?.summary
  }

  /// Creates a report from the content of a file; nil if it has another format.
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
    try await retrying { () throws(SystemError) in try saveBlocking(report, of: user) }
  }

  /// Saves a report. Blocks.
  func saveBlocking(_ report: StoredReport, of user: User) throws(SystemError) {
    let directory = reports(of: user)
    try createDirectories(directory)
    try replaceFile("\(directory)/\(report.id).json", with: report.file)
  }

  /// Saves a report, unless it exists.
  func saveIfAbsent(_ report: StoredReport, of user: User) async throws(SystemError) {
    let path = "\(reports(of: user))/\(report.id).json"
    if await pool.run({ unsafe access(path, F_OK) == 0 }) { return }
    try await save(report, of: user)
  }

  /// Returns a report; nil if the user has no valid report with this id.
  func report(_ id: String, of user: User) async throws(SystemError) -> StoredReport? {
    let path = "\(reports(of: user))/\(id).json"
    return try await pool.run { () throws(SystemError) in
      do throws(SystemError) { return StoredReport(file: try readFile(path)) } catch {
        if error.code == ENOENT { return nil }
        throw error
      }
    }
  }

  /// Returns the list entries of the user's reports, newest first, starting after the report ``Page/before``.
  func reports(of user: User, _ page: Page) async throws(SystemError) -> [JSON] {
    let directory = reports(of: user)
    return try await pool.run { () throws(SystemError) in
      // Ids begin with the time, so names sort by age.
      let names = try fileNames(in: directory).filter { $0.hasSuffix(".json") }.sorted(by: >)
      var reports: [JSON] = []
      for name in names where page.before.map({ name < $0 + ".json" }) ?? true {
        if reports.count == page.limit { break }
        do throws(SystemError) {
          let beginning = try readFile("\(directory)/\(name)", maximumBytes: StoredReport.maximumHeadBytes)
          if let summary = StoredReport.summary(of: beginning) { reports.append(summary) }
        } catch { onSkip(error) }
      }
      return reports
    }
  }

  private func reports(of user: User) -> String { directory(of: user) + "/reports" }
}
