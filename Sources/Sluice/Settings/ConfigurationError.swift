/// An invalid configuration, with every issue found in it.
public struct ConfigurationError: Error, Sendable, CustomStringConvertible {
  /// One issue: the variable and the expected value.
  public struct Issue: Sendable, Equatable, CustomStringConvertible {
    /// The name of the variable, such as `SLUICE_LISTEN`.
    public let variable: String
    /// The rest of the sentence, such as `must be unix:PATH or HOST:PORT, not "x"`.
    public let reason: String
    public var description: String { "\(variable) \(reason)" }
  }

  /// All issues. A variable can have several.
  public let issues: [Issue]
  public var description: String { issues.map(\.description).joined(separator: "\n") }
}
