import JSON
import Upstream

extension Services {
  /// GET /chat/onboarding-stream: guides a new user through the steps of `onboarding.txt`. A completed stream stores
  /// the turn and records the message as the answer to the current step; any other stream changes nothing.
  nonisolated(nonsending) func streamOnboarding(_ context: RequestContext) async throws -> GenerationRequest {
    let limit = context.configuration.maximumMessageBytes
    let message = try await RequestFields.parse(context, on: parsing) { (fields) throws(Failure) in
      try fields.string("message", limit: limit)
    }
    guard let script = OnboardingScript(parsing: try context.parts.prompts.text("onboarding") ?? "") else {
      throw Failure.incompleteConfiguration("onboarding.txt contains no step; start a line with #")
    }
    return GenerationRequest(
      message: message, model: context.configuration.model, session: Self.onboardingSession,
      produce: { generation, idempotencyLock in
        let before: OnboardingState
        do { before = try await self.store.onboarding(of: context.user) } catch {
          throw Failure(.internalError, "The onboarding's progress could not be read.", detail: "\(error)")
        }
        let (output, isNew) = try await self.startGeneration(
          message, in: Self.onboardingSession, instructions: script.instructions(after: before.answers), context,
          on: generation.reactor)
        let completion = try await generation.relay(output, isLast: true)
        let result = try await self.storeTurn(
          of: generation, message, in: Self.onboardingSession, isNew: isNew, completion, idempotencyLock, context)
        let state = try await self.advance(from: before, message, script, context)
        return result.with(extraMembers: state.progress(of: script))
      })
  }

  /// The session that contains a user's onboarding.
  static let onboardingSession = "onboarding"

  private nonisolated(nonsending) func advance(
    from before: OnboardingState, _ message: String, _ script: OnboardingScript, _ context: RequestContext
  ) async throws -> OnboardingState {
    guard let step = script.steps.dropFirst(before.answers.count).first else { return before }
    return try await writingStore("The response is complete but the onboarding's progress could not be stored.") {
      try await store.advanceOnboarding(
        of: context.user, from: before, with: OnboardingState.Answer(step: step.name, answer: message))
    }
  }
}

extension OnboardingState {
  /// The members added to the terminal record: the number of completed steps, the total, and whether all are completed.
  fileprivate func progress(of script: OnboardingScript) -> JSON.Members {
    let done = min(answers.count, script.steps.count)
    return [
      "step": .integer(done), "steps": .integer(script.steps.count), "finished": .bool(done == script.steps.count),
    ]
  }
}
