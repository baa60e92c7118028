import Glibc
import Sluice

/// The commands on the store: `sluice prune`, `export` and `forget`.
enum StoreCommands {
  /// Removes old sessions and reports.
  static func prune(_ arguments: inout Arguments) throws -> CInt {
    guard let text = try arguments.value(of: "--older-than"), let age = StoreAdministration.age(parsing: text) else {
      throw UsageError(reason: "prune needs --older-than with an age such as 90d or 12h")
    }
    let user = try arguments.value(of: "--user")
    let isDryRun = arguments.flag("--dry-run")
    let isJSON = arguments.flag("--json")
    try arguments.finish()
    var failures = 0
    let removed = try store().prune(olderThan: age, user: user, isDryRun: isDryRun) {
      Command.printError("passed over: \($0)")
      failures += 1
    }
    let code =
      isJSON
      ? print(["dryRun": .bool(isDryRun)], removed)
      : print("\(isDryRun ? "would remove" : "removed") \(self.text(removed)) older than \(text)")
    return failures > 0 ? 1 : code
  }

  /// Writes a tar archive of what is stored of a user to standard output.
  static func export(_ arguments: inout Arguments) throws -> CInt {
    let isJSON = arguments.flag("--json")
    let user = try arguments.word("USER")
    try arguments.finish()
    guard isatty(STDOUT_FILENO) == 0 else {
      throw UsageError(reason: "the archive is not for a terminal: redirect standard output to a file")
    }
    let (parent, name) = try store().location(ofUser: user)
    let status = try run(["tar", "--create", "--file=-", "--directory=\(parent)", "--", name])
    // 1: a file has grown while it was read, which a service does (tar(1), RETURN VALUE).
    guard status <= 1 else {
      Command.printError("tar has failed with status \(status); the archive is not complete")
      return 1
    }
    let object = JSON.object(["user": .string(user)])
    Command.printLine(
      isJSON ? String(decoding: object.encoded, as: UTF8.self) : "sluice: exported what is stored of \(user)",
      to: STDERR_FILENO)
    return 0
  }

  /// Removes what is stored of a user.
  static func forget(_ arguments: inout Arguments) throws -> CInt {
    let isConfirmed = arguments.flag("--yes")
    let isJSON = arguments.flag("--json")
    let user = try arguments.word("USER")
    try arguments.finish()
    let store = try store()
    if !isConfirmed {
      guard isatty(STDIN_FILENO) == 1 else {
        throw UsageError(reason: "forget asks before it removes anything: add --yes without a terminal")
      }
      Command.printError("everything that is stored of \(user) will be removed; type yes to confirm")
      guard readLine() == "yes" else {
        Command.printError("nothing was removed")
        return 1
      }
    }
    let removed = try store.forget(user: user)
    if isJSON { return print(["user": .string(user)], removed) }
    return print("removed \(text(removed)), all that was stored of \(user)")
  }

  private static func store() throws(StartError) -> StoreAdministration {
    try StoreAdministration(environment: Command.environment)
  }

  private static func text(_ removed: StoreAdministration.Removed) -> String {
    "\(removed.sessions) sessions and \(removed.reports) reports (\(removed.bytes) bytes)"
  }

  private static func print(_ text: String) -> CInt { Command.printLine(text) ? 0 : 1 }

  private static func print(_ members: JSON.Members, _ removed: StoreAdministration.Removed) -> CInt {
    var members = members
    members["sessions"] = .integer(removed.sessions)
    members["reports"] = .integer(removed.reports)
    members["bytes"] = .integer(removed.bytes)
    return print(String(decoding: JSON.object(members).encoded, as: UTF8.self))
  }

  /// Runs a program with this one's standard streams, and returns its exit status.
  private static func run(_ words: [String]) throws -> CInt {
    var arguments = unsafe words.map { unsafe strdup($0) } + [nil]
    defer { for index in 0..<words.count { unsafe free(arguments[index]) } }
    var pid: pid_t = 0
    let failure = unsafe posix_spawnp(&pid, words[0], nil, nil, &arguments, environ)
    guard failure == 0 else {
      throw CommandFailure(description: "\(words[0]) cannot be started: \(unsafe String(cString: strerror(failure)))")
    }
    var status: CInt = 0
    while unsafe waitpid(pid, &status, 0) < 0 {
      guard errno == EINTR else { return 2 }
    }
    return status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
  }
}

private struct CommandFailure: Error, CustomStringConvertible {
  let description: String
}
