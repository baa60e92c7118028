import EventLoop
import Glibc
import SluiceTesting
import Testing

@Suite("Descriptors")
struct DescriptorTests {
  @Test("A descriptor is closed with its owner, unless it was released before")
  func ownership() throws {
    let (owned, peer) = try socketPair()
    let other = Descriptor(owning: peer)
    do { _ = Descriptor(owning: owned) }
    // The peer observes the close. The number proves nothing, because another test may have reused it.
    #expect(other.receive() == [])
    let (given, givenPeer) = try socketPair()
    let reader = Descriptor(owning: givenPeer)
    let again = Descriptor(owning: Descriptor(owning: given).release())
    again.sendAll([7])
    #expect(reader.receive() == [7])
  }

  @Test("A watch reports readiness and a closed peer, and nothing after it is cancelled")
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
    // Only the loop's own wake-up descriptor is still watched.
    #expect(seen == ["readable", "readable", "closed", "1"])
  }

  @Test("A cancelled watch receives no pending event, even if its descriptor is watched again")
  func staleEvents() async throws {
    let seen = try await onLoop { reactor -> [String] in
      var seen: [String] = []
      let pairs = try [socketPair(), socketPair()]
      let first = Descriptor(owning: pairs[0].0)
      let firstPeer = Descriptor(owning: pairs[0].1)
      let second = Descriptor(owning: pairs[1].0)
      let secondPeer = Descriptor(owning: pairs[1].1)
      var watches: [Watch] = []
      // Both descriptors are ready in the same turn. The first handler cancels both watches, then watches the other
      // descriptor again.
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
