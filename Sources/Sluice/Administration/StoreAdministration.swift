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
    let environment = try Environment(checking: environment)
    let directories = [environment["SLUICE_STATE"], environment.directory("STATE_DIRECTORY")]
    guard let root = directories.compactMap(\.self).first(where: { !$0.isEmpty }) else {
      throw StartError(message: "SLUICE_STATE is not set: it must name the directory of the store")
    }
    guard unsafe access(root, R_OK | X_OK) == 0 else {
      throw StartError(message: "SLUICE_STATE names no store: \(SystemError("open \(root)"))")
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
  ///   - onFailure: called for each file or directory that is passed over because it cannot be read or removed.
  package func prune(
    olderThan age: Duration, user name: String?, isDryRun: Bool, onFailure: (any Error) -> Void
  ) throws -> Removed {
    // Timestamps of equal length in UTC sort by time.
    let oldest = Timestamp.text(Date(timeIntervalSinceNow: -Double(age.components.seconds)))
    var removed = Removed()
    func count(_ kind: WritableKeyPath<Removed, Int>, _ size: () throws -> Int?) {
      do {
        guard let bytes = try size() else { return }
        removed[keyPath: kind] += 1
        removed.bytes += bytes
      } catch { onFailure(error) }
    }
    func files(_ directory: String, _ suffix: String) -> [String] {
      do {
        return try fileNames(in: directory).filter { $0.hasSuffix(suffix) }.map { "\(directory)/\($0)" }.filter(isFile)
      } catch {
        onFailure(error)
        return []
      }
    }
    for directory in try name.map({ [try user($0).directoryName] }) ?? fileNames(in: root + "/users") {
      let path = "\(root)/users/\(directory)"
      // A file among the users is none of Sluice's.
      guard isDirectory(path) else { continue }
      for file in files(path + "/sessions", ".jsonl") {
        count(\.sessions) { try SessionFile(path: file).remove(ifOlderThan: oldest, isDryRun: isDryRun) }
      }
      for file in files(path + "/reports", ".json") {
        count(\.reports) { try removeReport(file, ifOlderThan: oldest, isDryRun: isDryRun) }
      }
    }
    return removed
  }

  /// Removes a report. Returns its size; nil if it is not that old or does not exist.
  private func removeReport(_ path: String, ifOlderThan oldest: String, isDryRun: Bool) throws(SystemError) -> Int? {
    do throws(SystemError) {
      var status = stat()
      guard unsafe lstat(path, &status) == 0 else { throw SystemError("stat \(path)") }
      let beginning = try readFile(path, maximumBytes: StoredReport.maximumHeadBytes)
      guard let at = StoredReport.summary(of: beginning)?["at"]?.string, at < oldest else { return nil }
      if !isDryRun, unsafe unlink(path) != 0 { throw SystemError("remove \(path)") }
      return status.st_size
    } catch {
      if error.code == ENOENT { return nil }
      throw error
    }
  }

  private func type(of path: String) -> mode_t? {
    var status = stat()
    return unsafe lstat(path, &status) == 0 ? status.st_mode & S_IFMT : nil
  }

  private func isFile(_ path: String) -> Bool { type(of: path) == S_IFREG }
  private func isDirectory(_ path: String) -> Bool { type(of: path) == S_IFDIR }

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

  /// Removes everything that is stored of a user, and what an interrupted call has left. What a stream of the user stores
  /// afterwards creates the directory again.
  package func forget(user name: String) throws -> Removed {
    var removed = Removed()
    // The name of a user's directory has no dot.
    for name in try fileNames(in: root + "/users")
    where name.first == "." && Identifier.isValid(String(name.dropFirst())) {
      try remove("\(root)/users/\(name)", &removed)
    }
    let directory: String
    do throws(StartError) { directory = store.directory(of: try user(name)) } catch {
      if removed.bytes > 0 { return removed }
      throw error
    }
    // Renamed first, so that no request finds a part of it.
    let doomed = "\(root)/users/.\(Identifier.make())"
    guard unsafe rename(directory, doomed) == 0 else { throw SystemError("rename \(directory)") }
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
