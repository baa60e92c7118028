/// An invalid configuration, with every issue found in it.
public struct ConfigurationError: Error, Sendable, CustomStringConvertible {
  /// One issue: the variable, the expected value, and where the variable is set.
  public struct Issue: Sendable, Equatable, CustomStringConvertible {
    /// The name of the variable, such as `SLUICE_LISTEN`.
    public let variable: String
    /// The rest of the sentence, such as `must be unix:PATH or HOST:PORT, not "x"`.
    public let reason: String
    /// The file and the line, such as `/etc/sluice/sluice.env:3`; nil for a variable of the process's environment.
    public let origin: String?
    public var description: String { (origin.map { "\($0): " } ?? "") + "\(variable) \(reason)" }

    init(variable: String, reason: String, origin: String? = nil) {
      self.variable = variable
      self.reason = reason
      self.origin = origin
    }
  }

  /// All issues. A variable can have several.
  public let issues: [Issue]
  public var description: String { issues.map(\.description).joined(separator: "\n") }
}
