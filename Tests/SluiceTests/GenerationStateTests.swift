import Testing

@testable import Sluice

@Suite("Generation state")
struct GenerationStateTests {
  private static let failure = Failure(.upstreamTimeout, "slow")
  private static let result = Termination.completed(GenerationResult())

  /// Returns the failure code or the outcome of a termination.
  private func word(_ termination: Termination) -> String {
    if case .failed(let failure) = termination { return failure.code.name }
    return termination.outcome.rawValue
  }

  @Test("A generation terminates for its handler's reason if no other termination is requested")
  func own() {
    for own in [Self.result, .failed(Self.failure)] {
      var state = GenerationState()
      #expect(throws: Never.self) { try state.checkTermination() }
      #expect(!state.isTerminating && !state.isTextComplete)
      #expect(word(state.close(own)) == word(own))
    }
  }

  @Test("The first requested termination wins, and cancels the handler once")
  func first() {
    var state = GenerationState()
    #expect(state.terminate(.stopped) == true)
    #expect(state.terminate(.disconnected) == false)
    #expect(state.isTerminating)
    #expect(throws: StreamClosedError.self) { try state.checkTermination() }
    #expect(word(state.close(.failed(Failure(.internalError, "cancelled")))) == "stopped")
  }

  @Test("A complete text stays completed after a stop or a timeout, but not after a disconnect")
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

  @Test("A handler whose text was incomplete at termination has no complete result, whatever it returns")
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

  @Test("A handler that observes the termination after its text was complete has no complete result")
  func observed() {
    var state = GenerationState()
    _ = state.completeText()
    _ = state.terminate(.stopped)
    #expect(throws: StreamClosedError.self) { try state.checkTermination() }
    #expect(!state.isTextComplete)
    #expect(word(state.close(Self.result)) == "stopped")
  }

  @Test("Deadlines are cancelled once, when the text is complete, and not for a terminating generation")
  func text() {
    var state = GenerationState()
    #expect(state.completeText() == true)
    #expect(state.completeText() == false)
    #expect(throws: Never.self) { try state.checkTermination() }
    #expect(state.terminate(.stopped) == true)
    #expect(state.completeText() == false)
  }

  @Test("A closed generation can neither be terminated nor continue")
  func closed() {
    var state = GenerationState()
    _ = state.close(Self.result)
    #expect(state.terminate(.stopped) == false)
    #expect(throws: StreamClosedError.self) { try state.checkTermination() }
    #expect(!state.isTextComplete)
  }
}
