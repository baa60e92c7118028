/// The steps that a new user is led through: what `onboarding.txt` says.
///
///     You welcome a new user. Ask one question at a time.
///
///     # name
///     Ask what they want to be called.
///
///     # goal
///     Ask what they want to reach.
///
/// What stands above the first heading holds for all steps.
struct OnboardingScript: Sendable {
  struct Step: Sendable, Equatable {
    let name: String
    let text: String
  }

  let introduction: String
  let steps: [Step]

  /// Nil when there is no step.
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

  /// What the model is told when `answers` have been given.
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
