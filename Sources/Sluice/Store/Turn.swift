import JSON
import Upstream

/// A completed turn of a conversation: the user's message and the complete response. One line of a session's file.
public struct Turn: Sendable, Equatable {
  /// The text of one side of a turn.
  public struct Text: Sendable, Equatable {
    /// The text.
    public var content: String
    /// The other members of the model's message, as in OpenAI's API: `refusal`, `tool_calls`, and its reasoning where
    /// `SLUICE_STORE_REASONING` is on. Usually empty.
    public var members: JSON.Members = [:]

    var json: JSON {
      var json: JSON.Members = ["content": .string(content)]
      json.merge(members)
      return .object(json)
    }
  }

  /// The id of the message (a UUIDv7).
  public var id: String
  /// The time at which the response was complete (RFC 3339, UTC).
  public var at: String
  /// The user's message.
  public var user: Text
  /// The model's complete response.
  public var assistant: Text
  /// The reason why the model stopped, as in OpenAI's `finish_reason`.
  public var finishReason: String?
  /// The requested model, if known.
  public var model: String?
  /// The token usage reported by the upstream.
  public var usage: Usage?

  /// Returns the JSON line, including its line feed. The order of the members is fixed, for readability with `less`.
  ///
  /// - Parameter number: the number of turns in the session, including this one. It is the last member, so that the end
  ///   of a file contains the number of its turns.
  func line(number: Int? = nil) -> [UInt8] {
    var members: JSON.Members = [
      "v": .integer(1), "id": .string(id), "at": .string(at), "user": user.json,
      "assistant": assistant.json,
    ]
    members["finishReason"] = finishReason.map(JSON.string)
    members["model"] = model.map(JSON.string)
    members["usage"] = usage?.json
    members["turn"] = number.map(JSON.integer)
    return JSON.object(members).encoded + [0x0A]
  }

  /// Returns the turn number at the end of a line, or of the last part of a line; nil if there is none.
  static func number(atEndOf line: some BidirectionalCollection<UInt8>) -> Int? {
    let start = Array(#","turn":"#.utf8)
    guard line.last == UInt8(ascii: "}") else { return nil }
    let digits = line.dropLast().suffix(while: { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    // Quotes within strings are escaped, so this is the last member and not part of a message.
    guard line[..<digits.startIndex].suffix(start.count).elementsEqual(start) else { return nil }
    return Int(String(decoding: digits, as: UTF8.self))
  }

  /// Returns the completion time in a line, read from its fixed position; nil if it is not there.
  static func time(atStartOf line: [UInt8]) -> String? {
    let head = line.prefix(160)
    guard let start = head.firstRange(of: Array(#"","at":""#.utf8))?.upperBound,
      let end = head[start...].firstIndex(of: UInt8(ascii: "\""))
    else { return nil }
    return String(decoding: head[start..<end], as: UTF8.self)
  }

  /// The bytes with which the line of this turn begins.
  var lineStart: [UInt8] { Array(#"{"v":1,"id":""#.utf8) + Array(id.utf8) + [UInt8(ascii: "\"")] }

  /// The finish reason and the token usage.
  var completion: Completion { Completion(finishReason.map(FinishReason.init(rawValue:)) ?? .stop, usage: usage) }

  /// The model's response in its parts.
  var response: OutputChunk.Choice { OutputChunk.Choice(index: 0, delta: assistant.members) }

  /// The messages of the turn in the form of OpenAI's API, which a prompt repeats.
  var messages: [Message] {
    var answer = Message(.assistant, assistant.content)
    guard !assistant.members.all.isEmpty else { return [Message(.user, user.content), answer] }
    var members: JSON.Members = ["role": "assistant"]
    members["content"] = assistant.content.isEmpty ? .null : .string(assistant.content)
    members.merge(assistant.members)
    answer.json = .object(members)
    // The API requires a result for each call, and nothing has run them.
    let results = (assistant.members["tool_calls"]?.array ?? []).compactMap { $0["id"]?.string }.map { id -> Message in
      var result = Message(.tool, "This call was not run.")
      result.json = ["role": "tool", "tool_call_id": .string(id), "content": .string(result.content)]
      return result
    }
    return [Message(.user, user.content), answer] + results
  }

  /// Creates a turn from a line; nil if the line was torn by a power cut or has another format.
  init?(line: some Collection<UInt8>) {
    guard let json = try? JSON(parsing: Array(line), depth: OutputChunk.maximumDepth), let id = json["id"]?.string,
      let at = json["at"]?.string,
      let user = json["user"]?["content"]?.string, let assistant = json["assistant"]?["content"]?.string
    else { return nil }
    self.id = id
    self.at = at
    self.user = Text(content: user)
    self.assistant = Text(content: assistant)
    let members = json["assistant"]?.object?.all ?? []
    self.assistant.members = JSON.Members(members.filter { $0.name != "content" })
    finishReason = json["finishReason"]?.string
    model = json["model"]?.string
    usage = json["usage"].flatMap(Usage.init(json:))
  }

  /// Creates a turn.
  ///
  /// - Parameters:
  ///   - id: the id of the message (a UUIDv7).
  ///   - at: the time at which the response was complete (RFC 3339, UTC).
  ///   - user: the user's message.
  ///   - assistant: the complete response.
  ///   - completion: the finish reason and the token usage.
  ///   - model: the requested model; nil if unknown.
  public init(id: String, at: String, user: String, assistant: String, completion: Completion, model: String? = nil) {
    self.id = id
    self.at = at
    self.user = Text(content: user)
    self.assistant = Text(content: assistant)
    self.finishReason = completion.finishReason.rawValue
    self.model = model
    self.usage = completion.usage
  }
}

extension BidirectionalCollection {
  /// Returns the longest suffix whose elements all satisfy `predicate`.
  fileprivate func suffix(while predicate: (Element) -> Bool) -> SubSequence {
    var start = endIndex
    while start > startIndex, predicate(self[index(before: start)]) { start = index(before: start) }
    return self[start...]
  }
}
