import EventLoop

/// A generator that repeats the last message word by word, for demonstrations, for tests, and for detecting whether a
/// proxy between here and the browser buffers.
package struct EchoGenerator: CallbackGenerator {
  /// The pause before each word.
  private let gap: Duration

  package init(gap: Duration = .milliseconds(30)) { self.gap = gap }

  package func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput {
    let output = ModelOutput()
    output.accept()
    Echo(prompt, gap: gap, output, reactor).wait()
    return output
  }

  /// Returns the words of `text`, each with the white space that follows it. Concatenated, they equal `text`.
  static func words(of text: String) -> [Substring] {
    var words: [Substring] = []
    var rest = text[...]
    while !rest.isEmpty {
      let word = rest.prefix { !$0.isWhitespace }
      let end = rest[word.endIndex...].prefix { $0.isWhitespace }.endIndex
      words.append(rest[..<end])
      rest = rest[end...]
    }
    return words
  }
}

private final class Echo {
  private var words: ArraySlice<Substring>
  private let usage: Usage
  private let gap: Duration
  private let output: ModelOutput
  private let reactor: Reactor
  private var timer: Timer?

  init(_ prompt: Prompt, gap: Duration, _ output: ModelOutput, _ reactor: Reactor) {
    self.words = EchoGenerator.words(of: prompt.messages.last?.content ?? "")[...]
    // The echo counts each word as one token.
    let asked = prompt.messages.reduce(0) { $0 + EchoGenerator.words(of: $1.content).count }
    self.usage = Usage(promptTokens: asked, completionTokens: words.count, totalTokens: asked + words.count)
    self.gap = gap
    self.output = output
    self.reactor = reactor
    output.onCancel = { self.timer?.cancel() }
    output.onDrain = { self.wait() }
  }

  /// Schedules the next word. The pending timer retains this object; while the output is full, the output's callbacks
  /// do.
  func wait() { timer = reactor.schedule(after: gap) { self.emitWord() } }

  private func emitWord() {
    guard let word = words.popFirst() else { return output.finish(Completion(usage: usage)) }
    output.yield(String(word))
    if !output.isFull { wait() }
  }
}
