import JSON

/// Reads the choices of chunks that are more than text, and knows which of them are still open.
struct ChoiceReader {
  /// The choices other than the first that have begun and have no finish reason yet.
  private var open: Set<Int> = []
  private var finished: Set<Int> = []
  /// The ids of the calls that came without an index, by choice. Their place here is their index.
  private var callIDs: [Int: [String]] = [:]

  /// Whether no choice that has begun is open. That of the first choice is the caller's to know.
  var isComplete: Bool { open.isEmpty }

  /// The number of choices other than the first that have finished.
  var finishedChoices: Int { finished.count }

  /// Returns the choices of a chunk, or of a `chat.completion`; nil if they cannot be read.
  mutating func read(_ json: JSON) -> OutputChunk? {
    var chunk = OutputChunk()
    for (place, value) in (json["choices"]?.array ?? []).enumerated() {
      guard let members = value.object else { return nil }
      let index = members["index"]?.integer ?? place
      let message = (members["delta"]?.object ?? members["message"]?.object)?.all ?? []
      var choice = OutputChunk.Choice(index: index)
      for member in message where !member.value.isEmpty && (index != 0 || member.name != "role") {
        choice.delta[member.name] = member.value
      }
      for member in members.all where !member.value.isEmpty && !Self.ownMembers.contains(member.name) {
        choice.members[member.name] = member.value
      }
      if case .array(let parts)? = choice.delta["content"], !parts.allSatisfy({ $0.object != nil }) { return nil }
      if let calls = choice.delta["tool_calls"]?.array {
        choice.delta["tool_calls"] = .array(calls.enumerated().map { indexed($1, place: $0, choice: index) })
      }
      if index != 0 { noteEnd(of: &choice, members["finish_reason"]) }
      if !choice.delta.all.isEmpty || !choice.members.all.isEmpty { chunk.choices.append(choice) }
    }
    return chunk
  }

  /// The members of a choice that are read one by one.
  private static let ownMembers: Set = ["index", "delta", "message", "finish_reason", "error"]

  private mutating func noteEnd(of choice: inout OutputChunk.Choice, _ finishReason: JSON?) {
    if let reason = finishReason?.string, !reason.isEmpty {
      choice.members["finish_reason"] = .string(reason)
      open.remove(choice.index)
      finished.insert(choice.index)
    } else if !finished.contains(choice.index) {
      open.insert(choice.index)
    }
  }

  /// Returns an element of `tool_calls` with an index. Servers that send each call as a whole leave it out.
  private mutating func indexed(_ call: JSON, place: Int, choice: Int) -> JSON {
    guard case .object(var members) = call, members["index"]?.integer == nil else { return call }
    let id = members["id"]?.string ?? ""
    var ids = callIDs[choice] ?? []
    let index: Int
    if let known = ids.firstIndex(of: id), !id.isEmpty {
      index = known
    } else if id.isEmpty, members["function"]?["name"] == nil, !ids.isEmpty {
      index = ids.count - 1
    } else {
      index = ids.count
      ids.append(id)
    }
    callIDs[choice] = ids
    members["index"] = nil
    return .object(JSON.Members([JSON.Members.Member(name: "index", value: .integer(index))] + members.all))
  }
}

extension JSON {
  /// Whether this is null, or a string, an array or an object that contains nothing.
  fileprivate var isEmpty: Bool {
    switch self {
    case .null, .string(""): true
    case .array(let elements): elements.isEmpty
    case .object(let members): members.all.isEmpty
    default: false
    }
  }
}
