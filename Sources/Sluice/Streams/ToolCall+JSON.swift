import JSON
import Upstream

extension OutputChunk.Choice {
  /// The members that report a refusal and calls of tools in terminal records and JSON responses.
  ///
  /// - Parameter name: the name of the member with the calls.
  func outputMembers(toolCalls name: String) -> JSON.Members {
    let (refusal, toolCalls) = (refusal, toolCalls)
    var members: JSON.Members = [:]
    if !refusal.isEmpty { members["refusal"] = .string(refusal) }
    if !toolCalls.isEmpty { members[name] = .array(toolCalls.map(\.json)) }
    return members
  }
}

extension ToolCall {
  /// A complete call as an object of terminal records and JSON responses.
  var json: JSON {
    ["id": .string(id ?? ""), "name": .string(name ?? ""), "arguments": .string(arguments)]
  }

  /// A delta of a call as an object, without the members that it does not have.
  var deltaJSON: JSON {
    var members: JSON.Members = ["index": .integer(index)]
    members["id"] = id.map(JSON.string)
    members["name"] = name.map(JSON.string)
    members["arguments"] = .string(arguments)
    return .object(members)
  }
}
