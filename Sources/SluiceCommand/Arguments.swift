/// A call of the program that is not valid, with the reason. The exit status is 2.
struct UsageError: Error {
  let reason: String
}

/// The arguments of a command. Each is taken once; ``finish()`` refuses the rest.
struct Arguments {
  private var words: [String]

  init(_ words: [String]) { self.words = words }

  /// Takes an option without a value. Returns whether it is there.
  mutating func flag(_ name: String) -> Bool {
    guard let index = words.firstIndex(of: name) else { return false }
    words.remove(at: index)
    return true
  }

  /// Takes an option with its value, as `--name VALUE` or `--name=VALUE`. Returns nil if it is not there.
  mutating func value(of name: String) throws(UsageError) -> String? {
    if let index = words.firstIndex(where: { $0.hasPrefix(name + "=") }) {
      return String(words.remove(at: index).dropFirst(name.count + 1))
    }
    guard let index = words.firstIndex(of: name) else { return nil }
    guard index + 1 < words.count else { throw UsageError(reason: "\(name) needs a value") }
    words.remove(at: index)
    return words.remove(at: index)
  }

  /// Takes the first argument that is no option.
  mutating func word(_ meaning: String) throws(UsageError) -> String {
    guard let index = words.firstIndex(where: { !$0.hasPrefix("-") }) else {
      throw UsageError(reason: "\(meaning) is missing")
    }
    return words.remove(at: index)
  }

  /// Throws if arguments are left.
  func finish() throws(UsageError) {
    if let word = words.first { throw UsageError(reason: "unknown argument \(word)") }
  }
}
