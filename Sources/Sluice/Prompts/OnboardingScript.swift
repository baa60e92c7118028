/// The onboarding steps for a new user, from `onboarding.txt`.
///
///     You welcome a new user. Ask one question at a time.
///
///     # name
///     Ask what they want to be called.
///
///     # goal
///     Ask what they want to reach.
///
/// Text above the first heading applies to all steps.
struct OnboardingScript: Sendable {
  struct Step: Sendable, Equatable {
    let name: String
    let text: String
  }

  let introduction: String
  let steps: [Step]

  /// Parses a script. Returns nil if it has no step.
  init?(parsing text: String) {
    var introduction: [Substring] = []
    var steps: [(name: String, lines: [Substring])] = []
    for line in text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline) {
      if line.hasPrefix("#") {
        steps.append((String(line.drop { $0 == "#" }.trimmed), []))
      } else if steps.isEmpty {
        introduction.append(line)
      } else {
        steps[steps.count - 1].lines.append(line)
      }
    }
    guard !steps.isEmpty else { return nil }
    self.introduction = String(introduction.joined(separator: "\n").trimmed)
    self.steps = steps.map { Step(name: $0.name, text: String($0.lines.joined(separator: "\n").trimmed)) }
  }

  /// Returns the instructions for the model after the user has given `answers`.
  func instructions(after answers: [OnboardingState.Answer]) -> String {
    var parts = [introduction]
    if !answers.isEmpty {
      let list = answers.map { "- \($0.step): \($0.answer)" }.joined(separator: "\n")
      parts.append("What the user has answered so far:\n\(list)")
    }
    if let step = steps.dropFirst(answers.count).first {
      parts.append("The user now answers step \(answers.count + 1) of \(steps.count), \"\(step.name)\":\n\(step.text)")
      if let next = steps.dropFirst(answers.count + 1).first {
        parts.append("Then go on to step \(answers.count + 2), \"\(next.name)\":\n\(next.text)")
      } else {
        parts.append("It is the last step: thank the user and sum up what they said.")
      }
    } else {
      parts.append("All \(steps.count) steps are done. Answer what the user still wants to know.")
    }
    return parts.filter { !$0.isEmpty }.joined(separator: "\n\n")
  }
}
