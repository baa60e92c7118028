import EventLoop
import Glibc
import JSON

/// How far a user's onboarding has come.
struct OnboardingState: Sendable, Equatable {
  struct Answer: Sendable, Equatable {
    let step: String
    let answer: String
  }

  /// One for each step that is done, in their order.
  var answers: [Answer] = []

  var file: [UInt8] {
    let json: JSON = [
      "v": .integer(1),
      "answers": .array(answers.map { ["step": .string($0.step), "answer": .string($0.answer)] }),
    ]
    return json.encoded + [0x0A]
  }

  init(answers: [Answer] = []) { self.answers = answers }

  /// Nil when the file is none of ours.
  init?(file: [UInt8]) {
    guard case .array(let values)? = (try? JSON(parsing: file))?["answers"] else { return nil }
    for value in values {
      guard let step = value["step"]?.string, let answer = value["answer"]?.string else { return nil }
      answers.append(Answer(step: step, answer: answer))
    }
  }
}

/// Onboarding: `onboarding.json`.
extension Store {
  /// The user's state; that of a new user when there is none.
  func onboarding(of user: User) async throws(SystemError) -> OnboardingState {
    let path = directory(of: user) + "/onboarding.json"
    return try await pool.run { () throws(SystemError) in try Self.read(path) }
  }

  /// Adds an answer, unless another stream of the same user has changed the state meanwhile: then that counts.
  ///
  /// - Returns: the state as it is now.
  func advanceOnboarding(
    of user: User, from before: OnboardingState, with answer: OnboardingState.Answer
  ) async throws(SystemError) -> OnboardingState {
    let directory = directory(of: user)
    let path = directory + "/onboarding.json"
    let after = OnboardingState(answers: before.answers + [answer])
    return try await retrying { () throws(SystemError) in
      try createDirectories(directory)
      // The directory is what is locked: the file is another one after each change.
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
