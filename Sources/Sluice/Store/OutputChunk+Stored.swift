import JSON
import Upstream

extension OutputChunk {
  /// The members of the message that a turn stores beside its text.
  var storedMembers: JSON.Members {
    let names = ["refusal", "tool_calls", "function_call"] + Choice.reasoningNames
    return JSON.Members((first?.message.all ?? []).filter { names.contains($0.name) })
  }
}
