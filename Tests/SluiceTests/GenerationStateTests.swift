import Testing

@testable import Sluice

@Suite("The state of a generation")
struct GenerationStateTests {
  private static let failure = Failure(.upstreamTimeout, "slow")
  private static let result = Termination.completed(GenerationResult())

  /// What a termination comes to, in a word.
  private func word(_ termination: Termination) -> String {
    if case .failed(let failure) = termination { return failure.code.name }
    return termination.outcome.rawValue
  }

  @Test("without a request for termination it terminates for its handler's reason")
  func own() {
    for own in [Self.result, .failed(Self.failure)] {
      var state = GenerationState()
      #expect(throws: Never.self) { try state.checkTermination() }
      #expect(!state.isTerminating && !state.handlerObservedTermination)
      #expect(word(state.close(own)) == word(own))
    }
  }

  @Test("the first request for termination wins, and cancels the handler once")
  func first() {
    var state = GenerationState()
    #expect(state.terminate(.stopped) == true)
    #expect(state.terminate(.disconnected) == false)
    #expect(state.isTerminating)
    #expect(throws: StreamClosedError.self) { try state.checkTermination() }
    #expect(state.handlerObservedTermination)
    #expect(word(state.close(.failed(Failure(.internalError, "cancelled")))) == "stopped")
  }

  @Test("what was completed before its handler saw a stop or a timeout stays completed; a lost client is lost")
  func late() {
    for (requested, expected) in [
      (Termination.stopped, "completed"), (.failed(Self.failure), "completed"), (.disconnected, "disconnected"),
    ] {
      var state = GenerationState()
      _ = state.terminate(requested)
      #expect(word(state.close(Self.result)) == expected, "after \(requested)")
    }
  }

  @Test("a handler that has seen the termination has no complete result, whatever it returns")
  func observed() {
    for requested in [Termination.stopped, .failed(Self.failure), .disconnected] {
      var state = GenerationState()
      _ = state.terminate(requested)
      try? state.checkTermination()
      #expect(word(state.close(Self.result)) == word(requested))
    }
  }

  @Test("deadlines are cancelled once, when the text is complete, and not for a generation that terminates")
  func text() {
    var state = GenerationState()
    #expect(state.completeText() == true)
    #expect(state.completeText() == false)
    #expect(throws: Never.self) { try state.checkTermination() }
    #expect(state.terminate(.stopped) == true)
    #expect(state.completeText() == false)
  }

  @Test("after it is closed nothing terminates it and nothing goes on")
  func closed() {
    var state = GenerationState()
    _ = state.close(Self.result)
    #expect(state.terminate(.stopped) == false)
    #expect(throws: StreamClosedError.self) { try state.checkTermination() }
    #expect(!state.handlerObservedTermination)
  }
}
