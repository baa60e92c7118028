import FastCGI
import JSON
import Testing

@testable import Sluice

@Suite("The state of a delivery")
struct DeliveryStateTests {
  private static let failure = Failure(.upstreamError, "no")
  private static let terminations: [Termination] = [
    .completed(GenerationResult()), .failed(failure), .stopped, .disconnected,
  ]

  @Test("sends its head once")
  func head() {
    var state = DeliveryState()
    #expect(state.begin() == .sendHead)
    #expect(state.begin() == .none)
    _ = state.close(.stopped)
    #expect(state.begin() == .none)
  }

  @Test("refuses with the failure's own status as long as the head is held")
  func held() {
    let expected: [DeliveryState.CloseAction] = [.sendHeadAndRecord, .refuse(Self.failure), .sendHeadAndRecord, .abort]
    for (termination, expected) in zip(Self.terminations, expected) {
      var state = DeliveryState()
      #expect(state.close(termination) == expected)
    }
  }

  @Test("ends with one record once it is open, and with none when nobody is there")
  func open() {
    let expected: [DeliveryState.CloseAction] = [.sendRecord, .sendRecord, .sendRecord, .abort]
    for (termination, expected) in zip(Self.terminations, expected) {
      var state = DeliveryState()
      _ = state.begin()
      #expect(state.close(termination) == expected)
    }
  }

  @Test("never ends twice, whatever comes after the end")
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
