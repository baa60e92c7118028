import EventLoop
import Glibc
import Synchronization

/// Returns two connected AF_UNIX stream sockets (socketpair(2)). The caller owns them; they are plain numbers because a
/// tuple cannot contain noncopyable values.
package func socketPair() throws(SystemError) -> (CInt, CInt) {
  var numbers: [CInt] = [0, 0]
  guard unsafe socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &numbers) == 0 else {
    throw SystemError("make a pair of sockets")
  }
  return (numbers[0], numbers[1])
}

/// A random number generator whose output is reproducible from a printed seed (SplitMix64).
package struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  package init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 }

  package mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var value = state
    value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
    value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
    return value ^ (value >> 31)
  }
}

/// A gate that blocks threads until it is opened.
package final class Gate: Sendable {
  private let isOpen = Atomic(false)

  package init() {}

  package func pass() { while !isOpen.load(ordering: .acquiring) { usleep(1000) } }
  package var isPassable: Bool { isOpen.load(ordering: .acquiring) }
  package func open() { isOpen.store(true, ordering: .releasing) }
}
