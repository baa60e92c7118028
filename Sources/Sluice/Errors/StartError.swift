/// Why a server does not start, for a person.
public struct StartError: Error, Sendable, CustomStringConvertible {
  let message: String
  public var description: String { message }
}
