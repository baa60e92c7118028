import FastCGI
import JSON
import Testing

@testable import Sluice

@Suite("Delivery state")
struct DeliveryStateTests {
  private static let failure = Failure(.upstreamError, "no")
  private static let terminations: [Termination] = [
    .completed(GenerationResult()), .failed(failure), .stopped, .disconnected,
  ]

  @Test("A delivery sends its head once")
  func head() {
    var state = DeliveryState()
    #expect(state.begin() == .sendHead)
    #expect(state.begin() == .none)
    _ = state.close(.stopped)
    #expect(state.begin() == .none)
  }

  @Test("A failure is sent with its own status while the head is deferred")
  func pending() {
    let expected: [DeliveryState.CloseAction] = [.sendHeadAndRecord, .refuse(Self.failure), .sendHeadAndRecord, .abort]
    for (termination, expected) in zip(Self.terminations, expected) {
      var state = DeliveryState()
      #expect(state.close(termination) == expected)
    }
  }

  @Test("An open delivery closes with one record, or aborts if its reader has disconnected")
  func open() {
    let expected: [DeliveryState.CloseAction] = [.sendRecord, .sendRecord, .sendRecord, .abort]
    for (termination, expected) in zip(Self.terminations, expected) {
      var state = DeliveryState()
      _ = state.begin()
      #expect(state.close(termination) == expected)
    }
  }

  @Test("A closed delivery ignores every later termination")
  func once() {
    for first in Self.terminations {
      for second in Self.terminations {
        var state = DeliveryState()
        _ = state.begin()
        _ = state.close(first)
        #expect(state.close(second) == .none)
      }
    }
  }
}
