/// Random mutations of valid input, reproducible from a printed seed.
extension [UInt8] {
  /// Returns the bytes after up to four random changes: bytes replaced, removed, inserted, duplicated or cut off.
  package func mutated(_ random: inout SeededGenerator) -> [UInt8] {
    var bytes = self
    for _ in 0..<Int.random(in: 1...4, using: &random) {
      guard !bytes.isEmpty else { return bytes }
      let index = Int.random(in: 0..<bytes.count, using: &random)
      let end = Swift.min(bytes.count, index + Int.random(in: 1...16, using: &random))
      switch Int.random(in: 0..<6, using: &random) {
      case 0: bytes[index] = .random(in: .min ... .max, using: &random)
      case 1: bytes[index] ^= 1 << UInt8.random(in: 0..<8, using: &random)
      case 2: bytes.removeSubrange(index..<end)
      case 3: bytes.insert(contentsOf: bytes[index..<end], at: index)
      case 4: bytes.insert([0, 0xFF, 0x80, 0x22, 0x7B, 0x5C].randomElement(using: &random) ?? 0, at: index)
      default: bytes.removeLast(bytes.count - index)
      }
    }
    return bytes
  }

  /// Returns the bytes split into chunks of random lengths, 1 to 64 bytes.
  package func splitIntoChunks(_ random: inout SeededGenerator) -> [[UInt8]] {
    var pieces: [[UInt8]] = []
    var rest = self[...]
    while !rest.isEmpty {
      let piece = rest.prefix(Int.random(in: 1...Swift.max(1, Swift.min(64, rest.count)), using: &random))
      pieces.append([UInt8](piece))
      rest = rest.dropFirst(piece.count)
    }
    return pieces
  }
}
