import JSON
import Upstream

/// A finished turn of a conversation: what the user said and the whole answer. One line of a session's file.
public struct Turn: Sendable, Equatable {
  /// One side of a turn.
  public struct Text: Sendable, Equatable {
    /// The text.
    public var content: String
  }

  /// The answer's message id (a UUIDv7).
  public var id: String
  /// When the answer was complete (RFC 3339, UTC).
  public var at: String
  /// What the user said.
  public var user: Text
  /// The model's complete response.
  public var assistant: Text
  /// Why the model stopped, in the words of OpenAI's `finish_reason`.
  public var finishReason: String?
  /// The model that was requested, as far as it is known.
  public var model: String?
  /// What it used, as the upstream counted it.
  public var usage: Usage?

  /// The line, with its end. The order of the members is fixed, for whoever reads it with `less`.
  ///
  /// - Parameter number: how many turns the session has with this one. It stands last, so that the end of a file tells
  ///   how many there are.
  func line(number: Int? = nil) -> [UInt8] {
    var members: JSON.Members = [
      "v": .integer(1), "id": .string(id), "at": .string(at), "user": ["content": .string(user.content)],
      "assistant": ["content": .string(assistant.content)],
    ]
    members["finishReason"] = finishReason.map(JSON.string)
    members["model"] = model.map(JSON.string)
    members["usage"] = usage?.json
    members["turn"] = number.map(JSON.integer)
    return JSON.object(members).encoded + [0x0A]
  }

  /// The number at the end of a line, or of the last part of one; nil when it has none.
  static func number(atEndOf line: some BidirectionalCollection<UInt8>) -> Int? {
    let start = Array(#","turn":"#.utf8)
    guard line.last == UInt8(ascii: "}") else { return nil }
    let digits = line.dropLast().suffix(while: { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    // No string holds a quote that is not escaped, so this is the last member and nothing that somebody said.
    guard line[..<digits.startIndex].suffix(start.count).elementsEqual(start) else { return nil }
    return Int(String(decoding: digits, as: UTF8.self))
  }

  /// When the turn of a line was complete, read at the place where it always stands; nil when it does not.
  static func time(atStartOf line: [UInt8]) -> String? {
    let head = line.prefix(160)
    guard let start = head.firstRange(of: Array(#"","at":""#.utf8))?.upperBound,
      let end = head[start...].firstIndex(of: UInt8(ascii: "\""))
    else { return nil }
    return String(decoding: head[start..<end], as: UTF8.self)
  }

  /// What a line of this turn begins with.
  var lineStart: [UInt8] { Array(#"{"v":1,"id":""#.utf8) + Array(id.utf8) + [UInt8(ascii: "\"")] }

  /// How the answer was completed.
  var completion: Completion { Completion(finishReason.map(FinishReason.init(rawValue:)) ?? .stop, usage: usage) }

  /// Nil when the line is not a whole turn: torn by a power cut, or not ours.
  init?(line: some Collection<UInt8>) {
    guard let json = try? JSON(parsing: Array(line)), let id = json["id"]?.string, let at = json["at"]?.string,
      let user = json["user"]?["content"]?.string, let assistant = json["assistant"]?["content"]?.string
    else { return nil }
    self.id = id
    self.at = at
    self.user = Text(content: user)
    self.assistant = Text(content: assistant)
    finishReason = json["finishReason"]?.string
    model = json["model"]?.string
    usage = json["usage"].flatMap(Usage.init(json:))
  }

  /// - Parameters:
  ///   - id: the message's (a UUIDv7).
  ///   - at: when the response was complete (RFC 3339, UTC).
  ///   - user: what the user said.
  ///   - assistant: the complete response.
  ///   - completion: why the model stopped, and its usage of tokens.
  ///   - model: the model that was requested; nil when it is not known.
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
  /// The longest end of which every element satisfies `isMeant`.
  fileprivate func suffix(while isMeant: (Element) -> Bool) -> SubSequence {
    var start = endIndex
    while start > startIndex, isMeant(self[index(before: start)]) { start = index(before: start) }
    return self[start...]
  }
}
