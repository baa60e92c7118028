import EventLoop
import FoundationEssentials
import Glibc

/// The commands that remove and copy what the store contains. They are safe beside running services. All methods block.
package struct StoreAdministration {
  private let root: String
  private let store: Store

  /// The number of files that were removed, and their size.
  package struct Removed: Sendable, Equatable {
    package var sessions = 0
    package var reports = 0
    package var bytes = 0
  }

  /// - Parameter environment: the variables of the process, which name the store or a file of settings that does.
  /// - Throws: ``StartError`` when there is no store.
  package init(environment: [String: String]) throws(StartError) {
    let environment = Environment(environment)
    if let issue = environment.issues.first { throw StartError(message: "\(issue)") }
    let state = environment["STATE_DIRECTORY"].flatMap { $0.split(separator: ":").first.map(String.init) }
    guard let root = [environment["SLUICE_STATE"], state].compactMap(\.self).first(where: { !$0.isEmpty }) else {
      throw StartError(message: "SLUICE_STATE is not set: it must name the directory of the store")
    }
    guard unsafe access(root + "/users", R_OK | W_OK | X_OK) == 0 else {
      throw StartError(message: "\(root) is no store that can be changed: \(SystemError("open \(root)/users"))")
    }
    self.root = root
    store = Store(root: root, pool: BlockingPool(maximumThreads: 1))
  }

  // MARK: Prune

  /// Returns the age that a text such as `90d` or `12h` stands for.
  package static func age(parsing text: String) -> Duration? { try? SettingValue.duration(text) }

  /// Removes the sessions whose newest turn, and the reports, that are older than `age`. A session is kept or removed as
  /// a whole.
  ///
  /// - Parameters:
  ///   - name: the user whose files are removed; nil for all users.
  ///   - isDryRun: whether to remove nothing and only count.
  package func prune(olderThan age: Duration, user name: String?, isDryRun: Bool) throws -> Removed {
    // Timestamps of equal length in UTC sort by time.
    let oldest = Timestamp.text(Date(timeIntervalSinceNow: -Double(age.components.seconds)))
    var removed = Removed()
    let directories = try name.map { [try user($0).directoryName] } ?? fileNames(in: root + "/users")
    for directory in directories {
      let path = "\(root)/users/\(directory)"
      for name in try fileNames(in: path + "/sessions") where name.hasSuffix(".jsonl") {
        if let bytes = try SessionFile(path: "\(path)/sessions/\(name)").remove(ifOlderThan: oldest, isDryRun: isDryRun)
        {
          removed.sessions += 1
          removed.bytes += bytes
        }
      }
      for name in try fileNames(in: path + "/reports") where name.hasSuffix(".json") {
        let file = "\(path)/reports/\(name)"
        guard let report = StoredReport(file: try readFile(file)), report.at < oldest else { continue }
        removed.reports += 1
        removed.bytes += size(of: file)
        if !isDryRun, unsafe unlink(file) != 0, errno != ENOENT { throw SystemError("remove \(file)") }
      }
    }
    return removed
  }

  private func size(of path: String) -> Int {
    var status = stat()
    return unsafe stat(path, &status) == 0 ? status.st_size : 0
  }

  // MARK: Users

  private func user(_ name: String) throws(StartError) -> User {
    guard let user = User(name) else { throw StartError(message: "\"\(name)\" is no name of a user") }
    guard unsafe access(store.directory(of: user), F_OK) == 0 else {
      throw StartError(message: "the store \(root) has no user \"\(name)\"")
    }
    return user
  }

  /// Returns where a user's directory is: the parent directory and the name in it.
  package func location(ofUser name: String) throws(StartError) -> (parent: String, name: String) {
    (root + "/users", try user(name).directoryName)
  }

  /// Removes everything that is stored of a user. What a stream of the user stores afterwards creates the directory
  /// again.
  package func forget(user name: String) throws -> Removed {
    let directory = store.directory(of: try user(name))
    // Renamed first, so that no request finds a part of it. The name of a user's directory has no dot.
    let doomed = "\(root)/users/.\(Identifier.make())"
    guard unsafe rename(directory, doomed) == 0 else { throw SystemError("rename \(directory)") }
    var removed = Removed()
    try remove(doomed, &removed)
    try syncDirectory(above: directory)
    return removed
  }

  /// Removes a directory and all that is in it. Does not follow symbolic links.
  private func remove(_ directory: String, _ removed: inout Removed) throws(SystemError) {
    for name in try fileNames(in: directory) {
      let path = "\(directory)/\(name)"
      var status = stat()
      guard unsafe lstat(path, &status) == 0 else { throw SystemError("stat \(path)") }
      if status.st_mode & S_IFMT == S_IFDIR {
        try remove(path, &removed)
        continue
      }
      guard unsafe unlink(path) == 0 else { throw SystemError("remove \(path)") }
      removed.bytes += status.st_size
      if directory.hasSuffix("/sessions") { removed.sessions += 1 }
      if directory.hasSuffix("/reports") { removed.reports += 1 }
    }
    guard unsafe rmdir(directory) == 0 else { throw SystemError("remove \(directory)") }
  }
}
