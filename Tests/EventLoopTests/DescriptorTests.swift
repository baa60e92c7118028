import EventLoop
import Glibc
import SluiceTesting
import Testing

@Suite("Descriptors")
struct DescriptorTests {
  @Test("are closed by their owner's end, and not when they were given away")
  func ownership() throws {
    let (owned, peer) = try socketPair()
    let other = Descriptor(owning: peer)
    do { _ = Descriptor(owning: owned) }
    // Not by the number, which may be somebody else's by now: the other end sees the close.
    #expect(other.receive() == [])
    let (given, givenPeer) = try socketPair()
    let reader = Descriptor(owning: givenPeer)
    let again = Descriptor(owning: Descriptor(owning: given).release())
    again.sendAll([7])
    #expect(reader.receive() == [7])
  }

  @Test("that are watched report what they became, and nothing once the watch is cancelled")
  func watching() async throws {
    let seen = try await onLoop { reactor -> [String] in
      let pair = try socketPair()
      let mine = Descriptor(owning: pair.0)
      let other = Descriptor(owning: pair.1)
      var seen: [String] = []
      let watch = try reactor.watch(mine.number, for: .readable | .peerClosed | .edgeTriggered) { ready in
        seen.append(ready.contains(.peerClosed) ? "closed" : "readable")
      }
      other.sendAll([1])
      await reactor.nextTurn()
      other.sendAll([2])
      await reactor.nextTurn()
      shutdown(other.number, CInt(SHUT_WR))
      await reactor.nextTurn()
      watch.cancel()
      other.sendAll([3])
      await reactor.nextTurn()
      return seen + ["\(reactor.watchedDescriptors)"]
    }
    // The loop's own wake-up is the one that is left.
    #expect(seen == ["readable", "readable", "closed", "1"])
  }

  @Test("closed and opened again under the same number do not get each other's events")
  func staleEvents() async throws {
    let seen = try await onLoop { reactor -> [String] in
      var seen: [String] = []
      let pairs = try [socketPair(), socketPair()]
      let first = Descriptor(owning: pairs[0].0)
      let firstPeer = Descriptor(owning: pairs[0].1)
      let second = Descriptor(owning: pairs[1].0)
      let secondPeer = Descriptor(owning: pairs[1].1)
      var watches: [Watch] = []
      // Both are ready in one turn; whoever comes first cancels the other and watches it anew.
      let numbers = (first.number, second.number)
      for (name, number) in [("first", numbers.0), ("second", numbers.1)] {
        watches.append(
          try reactor.watch(number, for: .readable) { _ in
            seen.append(name)
            for watch in watches { watch.cancel() }
            if let again = try? reactor.watch(name == "first" ? numbers.1 : numbers.0, for: .writable, { _ in }) {
              watches = [again]
            }
          })
      }
      firstPeer.sendAll([1])
      secondPeer.sendAll([1])
      await reactor.nextTurn()
      for watch in watches { watch.cancel() }
      withExtendedLifetime((numbers)) {}
      return seen
    }
    #expect(seen.count == 1, "\(seen)")
  }
}
