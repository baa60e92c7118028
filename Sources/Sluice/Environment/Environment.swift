import EventLoop

/// The variables that configure the process: those of its environment, and those of the file that `SLUICE_ENV_FILE`
/// names, which take precedence.
struct Environment: Sendable {
  private(set) var variables: [String: String]
  /// The file and line of each variable of the file, as `PATH:LINE`.
  private var origins: [String: String] = [:]
  private(set) var issues: [ConfigurationError.Issue] = []
  private(set) var warnings: [ConfigurationError.Issue] = []

  static let fileVariable = "SLUICE_ENV_FILE"

  /// Reads the file, if there is one. Blocks.
  ///
  /// - Parameter process: the variables of the process.
  init(_ process: [String: String]) {
    variables = process
    guard let path = process[Self.fileVariable], !path.isEmpty else { return }
    let file: EnvironmentFile
    do throws(SystemError) { file = EnvironmentFile(parsing: try readFile(path)) } catch {
      issues.append(.init(variable: Self.fileVariable, reason: "cannot be read: \(error)"))
      return
    }
    for issue in file.issues {
      issues.append(.init(variable: Self.fileVariable, reason: issue.reason, origin: "\(path):\(issue.line)"))
    }
    for assignment in file.assignments {
      let name = assignment.name
      let origin = "\(path):\(assignment.line)"
      if name == Self.fileVariable {
        issues.append(.init(variable: name, reason: "cannot be set in the file that it names", origin: origin))
      }
      if let earlier = origins[name] {
        warnings.append(.init(variable: name, reason: "replaces the value of \(earlier)", origin: origin))
      }
      variables[name] = assignment.value
      origins[name] = origin
    }
  }

  /// The same for a command, which needs the file to be valid.
  ///
  /// - Throws: ``StartError`` with the first issue of the file.
  init(checking process: [String: String]) throws(StartError) {
    self.init(process)
    if let issue = issues.first { throw StartError(message: "\(issue)") }
  }

  subscript(name: String) -> String? { variables[name] }

  /// Returns the first directory of a variable that systemd sets to a list, such as `STATE_DIRECTORY` (systemd.exec(5)).
  func directory(_ name: String) -> String? { variables[name]?.split(separator: ":").first.map(String.init) }

  /// Returns issues with the file and line of their variables.
  func locating(_ issues: [ConfigurationError.Issue]) -> [ConfigurationError.Issue] {
    issues.map { issue in
      guard issue.origin == nil, let origin = origins[issue.variable] else { return issue }
      return .init(variable: issue.variable, reason: issue.reason, origin: origin)
    }
  }
}
