import JSON
import Upstream

extension OutputChunk {
  /// The members of the message that a turn stores beside its text.
  var storedMembers: JSON.Members {
    let names = ["refusal", "tool_calls"] + Choice.reasoningNames
    return JSON.Members((first?.message.all ?? []).filter { names.contains($0.name) })
  }

  /// The form in which a replay is stored.
  var json: JSON {
    .array(
      choices.map {
        ["index": .integer($0.index), "delta": .object($0.delta), "members": .object($0.members)]
      })
  }

  /// Returns nil if `json` is not of that form.
  init?(json: JSON) {
    guard let values = json.array else { return nil }
    self.init()
    for value in values {
      guard let index = value["index"]?.integer, let delta = value["delta"]?.object,
        let members = value["members"]?.object
      else { return nil }
      choices.append(Choice(index: index, delta: delta, members: members))
    }
  }
}
