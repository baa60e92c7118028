import EventStream
import FastCGI
import JSON
import Upstream

/// What a finished answer is called and how it came to its end.
public final class GenerationResult: Sendable {
  /// The id under which the answer is kept; nil where it is not.
  public let messageID: String?
  public let sessionID: String?
  /// When it was complete, where it is kept (RFC 3339, UTC).
  let completedAt: String?
  public let completion: Completion
  /// Further members of the terminal record, such as `report`.
  public let extraMembers: JSON.Members

  public convenience init(
    messageID: String? = nil, sessionID: String? = nil, completion: Completion = Completion(),
    extraMembers: JSON.Members = [:]
  ) {
    self.init(
      messageID: messageID, sessionID: sessionID, completedAt: nil, completion: completion, extraMembers: extraMembers)
  }

  init(
    messageID: String?, sessionID: String?, completedAt: String?, completion: Completion,
    extraMembers: JSON.Members = [:]
  ) {
    self.messageID = messageID
    self.sessionID = sessionID
    self.completedAt = completedAt
    self.completion = completion
    self.extraMembers = extraMembers
  }

  /// The same with other further members.
  func with(extraMembers: JSON.Members) -> GenerationResult {
    GenerationResult(
      messageID: messageID, sessionID: sessionID, completedAt: completedAt, completion: completion,
      extraMembers: extraMembers)
  }
}

/// What can happen in a stream: one vocabulary for all wire formats.
public enum StreamEvent: Sendable {
  /// The first, once: the stream is open.
  case started
  case delta(String)
  case heartbeat
  /// The last: exactly one of these three.
  case completed(GenerationResult)
  case failed(Failure)
  case cancelled(reason: String)
}

/// What a dialect may tell of a stream.
public struct StreamMetadata: Sendable {
  /// The id that the answer has, or would have, where it is kept: the stream's, unless it is an answer given again.
  public var messageID: String
  /// What the user said.
  public var message = ""
  /// The model that is asked.
  public var model = "default"
  /// Whether the client wants to be told what the answer cost.
  public var wantsUsage = false

  public init(messageID: String) { self.messageID = messageID }
}

/// A wire format: one value for each stream, which writes the stream's events as records.
public protocol Dialect: Sendable {
  /// The name under which `?dialect=` chooses it.
  static var name: String { get }

  /// Whether a record may have an id. Some clients of a format stumble over one.
  static var allowsEventID: Bool { get }

  init(_ stream: StreamMetadata)

  /// Header fields beside those that every stream has.
  func addFields(to head: inout ResponseHead)

  /// Appends the records of `event`, none or several, to `buffer`. On the path of every token.
  mutating func encode(_ event: StreamEvent, into buffer: inout [UInt8])
}

extension Dialect {
  public static var allowsEventID: Bool { true }
  public func addFields(to head: inout ResponseHead) {}
}

/// All dialects. A new one is one file and one entry here.
enum Dialects {
  static let all: [any Dialect.Type] = [
    EventsDialect.self, DeltasDialect.self, ChunksDialect.self, ChatDialect.self, OpenAIDialect.self, UIDialect.self,
  ]

  /// The one called `name`.
  static func named(_ name: String) throws(Failure) -> any Dialect.Type {
    if let found = all.first(where: { $0.name == name }) { return found }
    let names = all.map { $0.name }.joined(separator: ", ")
    throw Failure(.badRequest, "\"dialect\" must be one of: \(names).")
  }
}

/// The records that dialects are made of.
extension [UInt8] {
  /// Appends a record with JSON data.
  mutating func append(record event: StaticString? = nil, _ data: JSON) {
    EventStreamEncoder.beginLine(event: event, into: &self)
    append(json: data)
    EventStreamEncoder.endLine(&self)
  }

  /// Appends a record of which all but one text is always the same. On the path of every token.
  mutating func append(recordWith text: String, after start: [UInt8], before end: [UInt8]) {
    append(contentsOf: start)
    append(jsonString: text)
    append(contentsOf: end)
  }

  /// Appends `data: [DONE]`, with which some formats end.
  mutating func appendDone() { append(contentsOf: "data: [DONE]\n\n".utf8) }
}

/// The end of a record whose JSON ends with the text.
let recordEnd = Array("}\n\n".utf8)
