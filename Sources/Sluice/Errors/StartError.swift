/// The reason why a server does not start, as a readable message.
public struct StartError: Error, Sendable, CustomStringConvertible {
  let message: String
  public var description: String { message }
}
