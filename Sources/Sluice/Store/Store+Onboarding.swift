import EventLoop
import Glibc
import JSON

/// The progress of a user's onboarding.
struct OnboardingState: Sendable, Equatable {
  struct Answer: Sendable, Equatable {
    let step: String
    let answer: String
  }

  /// The answers, one per completed step, in order.
  var answers: [Answer] = []

  var file: [UInt8] {
    let json: JSON = [
      "v": .integer(1),
      "answers": .array(answers.map { ["step": .string($0.step), "answer": .string($0.answer)] }),
    ]
    return json.encoded + [0x0A]
  }

  init(answers: [Answer] = []) { self.answers = answers }

  /// Creates a state from the content of a file; nil if it has another format.
  init?(file: [UInt8]) {
    guard case .array(let values)? = (try? JSON(parsing: file))?["answers"] else { return nil }
    for value in values {
      guard let step = value["step"]?.string, let answer = value["answer"]?.string else { return nil }
      answers.append(Answer(step: step, answer: answer))
    }
  }
}

/// Onboarding states: `onboarding.json`.
extension Store {
  /// Returns the user's state, which is empty for a new user.
  func onboarding(of user: User) async throws(SystemError) -> OnboardingState {
    let path = directory(of: user) + "/onboarding.json"
    return try await pool.run { () throws(SystemError) in try Self.read(path) }
  }

  /// Appends an answer to the state, unless another stream of the same user has changed it since `before`.
  ///
  /// - Returns: the state now stored.
  func advanceOnboarding(
    of user: User, from before: OnboardingState, with answer: OnboardingState.Answer
  ) async throws(SystemError) -> OnboardingState {
    let directory = directory(of: user)
    let path = directory + "/onboarding.json"
    let after = OnboardingState(answers: before.answers + [answer])
    return try await retrying { () throws(SystemError) in
      try createDirectories(directory)
      // Locks the directory, because each change replaces the file.
      let descriptor = try Descriptor(
        unsafe open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), from: "open \(directory)")
      try lock(descriptor, directory)
      let now = try Self.read(path)
      guard now == before else { return now }
      try replaceFile(path, with: after.file)
      return after
    }
  }

  private static func read(_ path: String) throws(SystemError) -> OnboardingState {
    do throws(SystemError) {
      guard let state = OnboardingState(file: try readFile(path)) else {
        throw SystemError("understand \(path)", code: EILSEQ)
      }
      return state
    } catch {
      if error.code == ENOENT { return OnboardingState() }
      throw error
    }
  }
}
