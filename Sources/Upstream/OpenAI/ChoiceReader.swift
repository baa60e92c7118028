import JSON

/// Reads the choices of chunks that are more than text, and knows which of them are still open.
struct ChoiceReader {
  /// The choices other than the first that have begun and have no finish reason yet.
  private var open: Set<Int> = []
  private var finished: Set<Int> = []
  /// The calls of tools so far, by choice.
  private var calls: [Int: Calls] = [:]
  /// The finish reason of a choice that does not mean completion.
  private(set) var failedReason: FinishReason?

  /// The maximum number of choices, and of the calls of one choice.
  private static let maximumCount = 1024

  /// Whether no choice that has begun is open. That of the first choice is the caller's to know.
  var isComplete: Bool { open.isEmpty }

  /// The number of choices other than the first that have finished.
  var finishedChoices: Int { finished.count }

  /// Returns the choices of a chunk, or of a `chat.completion`; nil if they cannot be read.
  mutating func read(_ json: JSON) -> OutputChunk? {
    var chunk = OutputChunk()
    for (place, value) in (json["choices"]?.array ?? []).enumerated() {
      guard let members = value.object else { return nil }
      var choice = OutputChunk.Choice(index: members["index"]?.integer ?? place)
      for member in message(of: members) where choice.index != 0 || member.name != "role" {
        choice.delta[member.name] = member.value
      }
      for member in members.all where !member.value.isEmpty && !Self.ownMembers.contains(member.name) {
        choice.members[member.name] = member.value
      }
      guard readContent(of: &choice), readCalls(of: &choice) else { return nil }
      if choice.index != 0 { noteEnd(of: &choice, members["finish_reason"]) }
      if !choice.isEmpty { chunk.join(OutputChunk([choice])) }
    }
    return open.count + finished.count < Self.maximumCount ? chunk : nil
  }

  /// The members of a choice that are read one by one.
  private static let ownMembers: Set = ["index", "delta", "message", "finish_reason", "error"]

  /// Returns the members of a choice's delta or message that contain something.
  private func message(of choice: JSON.Members) -> [JSON.Members.Member] {
    let candidates = ["delta", "message"].lazy.map { name in
      (choice[name]?.object?.all ?? []).filter { !$0.value.isEmpty }
    }
    return candidates.first { !$0.isEmpty } ?? []
  }

  /// Returns false if the content is neither text nor an array of parts.
  private func readContent(of choice: inout OutputChunk.Choice) -> Bool {
    guard case .array(let parts)? = choice.delta["content"] else { return true }
    return parts.allSatisfy { $0.object != nil || $0.string != nil }
  }

  private mutating func noteEnd(of choice: inout OutputChunk.Choice, _ finishReason: JSON?) {
    if let reason = finishReason?.string, !reason.isEmpty {
      choice.members["finish_reason"] = .string(reason)
      if !FinishReason(rawValue: reason).isCompletion { failedReason = FinishReason(rawValue: reason) }
      open.remove(choice.index)
      finished.insert(choice.index)
    } else if !finished.contains(choice.index) {
      open.insert(choice.index)
    }
  }

  // MARK: Calls of tools

  /// The indices of the calls of one choice.
  private struct Calls {
    /// The index and the id of the call to which each of the server's indices refers.
    var byIndex: [Int: (index: Int, id: String)] = [:]
    var ids: [String: Int] = [:]
    var count = 0
    var last = 0
  }

  /// Gives each element of `tool_calls` its index. Returns false if there are too many calls.
  private mutating func readCalls(of choice: inout OutputChunk.Choice) -> Bool {
    guard let value = choice.delta["tool_calls"] else { return true }
    // Some servers send one call instead of an array.
    let elements = (value.array ?? [value]).filter { $0.object != nil }
    guard elements.allSatisfy({ $0["index"]?.integer ?? 0 < Self.maximumCount }) else { return false }
    var calls = calls[choice.index] ?? Calls()
    choice.delta["tool_calls"] =
      elements.isEmpty ? nil : .array(elements.map { Self.indexed($0, &calls) })
    self.calls[choice.index] = calls
    return calls.count <= Self.maximumCount
  }

  /// Returns a call with an index of its own. Some servers leave it out, or send the same one for calls with different
  /// ids.
  private static func indexed(_ call: JSON, _ calls: inout Calls) -> JSON {
    guard case .object(let members) = call else { return call }
    // Any other number is none.
    let given = members["index"]?.integer.flatMap { $0 >= 0 ? $0 : nil }
    let id = members["id"]?.string ?? ""
    let index: Int
    if let given, let known = calls.byIndex[given], id.isEmpty || known.id.isEmpty || known.id == id {
      index = known.index
      if !id.isEmpty { calls.byIndex[given] = (index, id) }
    } else if given == nil, let known = calls.ids[id] {
      index = known
    } else if given == nil, id.isEmpty, members["function"]?["name"] == nil, calls.count > 0 {
      index = calls.last
    } else {
      index = given.map { $0 >= calls.count ? $0 : calls.count } ?? calls.count
      calls.count = max(calls.count, index) + 1
      if let given { calls.byIndex[given] = (index, id) }
    }
    if !id.isEmpty { calls.ids[id] = index }
    calls.last = index
    if index == given { return call }
    let others = members.all.filter { $0.name != "index" }
    return .object(JSON.Members([JSON.Members.Member(name: "index", value: .integer(index))] + others))
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
