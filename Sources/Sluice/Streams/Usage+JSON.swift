import JSON
import Upstream

extension Usage {
  /// The object that OpenAI's API calls `usage`. It is sent to clients and stored in turns and replays.
  var json: JSON {
    var members: JSON.Members = [
      "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
      "total_tokens": .integer(totalTokens),
    ]
    members.append(details)
    return .object(members)
  }

  /// Returns nil if `json` is not such an object. The member names of turns stored by early versions are also accepted.
  init?(json: JSON) {
    func count(_ name: String, _ formerName: String) -> Int? { (json[name] ?? json[formerName])?.integer }
    guard let prompt = count("prompt_tokens", "promptTokens"),
      let completion = count("completion_tokens", "completionTokens"),
      let total = count("total_tokens", "totalTokens")
    else { return nil }
    self.init(promptTokens: prompt, completionTokens: completion, totalTokens: total)
    details = Usage.details(of: json)
  }
}
