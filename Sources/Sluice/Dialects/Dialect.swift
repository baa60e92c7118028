import EventStream
import FastCGI
import Upstream

/// What a finished answer is called and how it came to its end.
public final class Finish: Sendable {
  public let messageID: String?
  public let sessionID: String?
  public let completion: Completion
  /// Further members of the terminal record, such as `report`.
  public let more: JSON.Members

  public init(
    messageID: String? = nil, sessionID: String? = nil, completion: Completion = Completion(), more: JSON.Members = [:]
  ) {
    self.messageID = messageID
    self.sessionID = sessionID
    self.completion = completion
    self.more = more
  }
}

/// What can happen in a stream: one vocabulary for all wire formats.
public enum StreamEvent: Sendable {
  /// The first, once: the stream is open. `message` is what the user said.
  case began(message: String)
  case delta(String)
  case heartbeat
  /// The last: exactly one of these three.
  case finished(Finish)
  case failed(Failure)
  case cancelled(reason: String)
}

/// A wire format: one value for each stream, which writes the stream's events as records.
public protocol Dialect: Sendable {
  /// The name under which `?dialect=` chooses it.
  static var name: String { get }

  /// - Parameter id: the stream's id.
  init(streamID: String)

  /// Header fields beside those that every stream has.
  func addFields(to head: inout ResponseHead)

  /// Appends the records of `event`, none or several, to `buffer`. On the path of every token.
  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8])
}

extension Dialect {
  public func addFields(to head: inout ResponseHead) {}
}

/// All dialects. A new one is one file and one entry here.
enum Dialects {
  static let all: [any Dialect.Type] = [EventsDialect.self]

  static func named(_ name: String) -> (any Dialect.Type)? { all.first { $0.name == name } }
}
