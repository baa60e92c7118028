/// The configuration is invalid: every issue that was found.
public struct ConfigurationError: Error, Sendable, CustomStringConvertible {
  /// One issue: the variable, and what would be right.
  public struct Issue: Sendable, Equatable, CustomStringConvertible {
    /// The variable's name: `SLUICE_LISTEN`.
    public let variable: String
    /// The rest of the sentence: `must be unix:PATH or HOST:PORT, not "x"`.
    public let reason: String
    public var description: String { "\(variable) \(reason)" }
  }

  /// One for each variable that is wrong, and for each thing that is.
  public let issues: [Issue]
  public var description: String { issues.map(\.description).joined(separator: "\n") }
}
