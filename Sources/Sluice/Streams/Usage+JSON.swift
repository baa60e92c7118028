import JSON
import Upstream

extension Usage {
  /// The object that OpenAI's API calls `usage`: clients get it and replays store it.
  var json: JSON {
    [
      "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(completionTokens),
      "total_tokens": .integer(totalTokens),
    ]
  }

  /// Nil when `json` is not such an object. The names that turns were stored with at first are read too.
  init?(json: JSON) {
    func count(_ name: String, _ formerName: String) -> Int? { (json[name] ?? json[formerName])?.integer }
    guard let prompt = count("prompt_tokens", "promptTokens"),
      let completion = count("completion_tokens", "completionTokens"),
      let total = count("total_tokens", "totalTokens")
    else { return nil }
    self.init(promptTokens: prompt, completionTokens: completion, totalTokens: total)
  }
}
