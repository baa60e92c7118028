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
      #expect(!state.isTerminating && !state.isTextComplete)
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
    #expect(word(state.close(.failed(Failure(.internalError, "cancelled")))) == "stopped")
  }

  @Test("a text that was complete before a stop or a timeout stays completed; a lost client is lost")
  func late() {
    for (requested, expected) in [
      (Termination.stopped, "completed"), (.failed(Self.failure), "completed"), (.disconnected, "disconnected"),
    ] {
      var state = GenerationState()
      _ = state.completeText()
      _ = state.terminate(requested)
      #expect(state.isTextComplete)
      #expect(word(state.close(Self.result)) == expected, "after \(requested)")
    }
  }

  @Test("a handler whose text was not complete has no complete result, whatever it returns, seen or not")
  func incomplete() {
    for requested in [Termination.stopped, .failed(Self.failure), .disconnected] {
      for isSeen in [false, true] {
        var state = GenerationState()
        _ = state.terminate(requested)
        if isSeen { try? state.checkTermination() }
        #expect(!state.isTextComplete)
        #expect(word(state.close(Self.result)) == word(requested))
      }
    }
  }

  @Test("a handler that sees the termination after its text was complete, and goes on, has no complete result")
  func observed() {
    var state = GenerationState()
    _ = state.completeText()
    _ = state.terminate(.stopped)
    #expect(throws: StreamClosedError.self) { try state.checkTermination() }
    #expect(!state.isTextComplete)
    #expect(word(state.close(Self.result)) == "stopped")
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
    #expect(!state.isTextComplete)
  }
}
