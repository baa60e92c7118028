import EventLoop
import Glibc
import JSON

/// A generator that runs a program for each response: a local model. The prompt is JSON on its standard input, the text
/// is what it writes to its standard output, and exit status 0 completes it.
package struct CommandGenerator: CallbackGenerator {
  /// The threads that encode prompts and start programs, at most two at a time.
  private static let starting = BlockingPool(maximumThreads: 2)

  private let words: [String]
  private let environment: [String: String]
  private let limit: Int
  private let slots: CommandSlots
  private let onLine: CommandRun.LineHandler

  /// - Parameters:
  ///   - words: the program and its arguments, at least one word. A name is searched for in the `PATH` of `environment`.
  ///   - environment: the variables of the program: those of this process that ``isPassedOn(_:)`` names.
  ///   - limit: the number of programs that run at the same time; further responses wait in order.
  ///   - slots: counts the programs that run.
  ///   - onLine: called for each line that a program writes to standard error, on a loop's thread.
  package init(
    _ words: [String], environment: [String: String], limit: Int, slots: CommandSlots,
    onLine: @escaping CommandRun.LineHandler
  ) {
    self.words = words
    self.environment = environment
    self.limit = limit
    self.slots = slots
    self.onLine = onLine
  }

  /// Whether programs get a variable of this process.
  package static func isPassedOn(_ variable: String) -> Bool {
    ["PATH", "HOME", "LANG", "TZ", "TMPDIR"].contains(variable) || variable.hasPrefix("LC_")
  }

  package func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput {
    let output = ModelOutput()
    // Safe: `execute` runs the closure on this loop.
    let bound = unsafe LoopBound((output, reactor))
    let loop = reactor.loop
    let admission = slots.request(limit: limit) { slot in
      loop.execute { _ in start(prompt, slot, bound.value.0, bound.value.1) }
    }
    switch admission {
    case .admitted(let slot): start(prompt, slot, output, reactor)
    case .waiting(let id):
      output.refusalWhileWaiting = GeneratorError(
        .overloaded, "All processes of the model are busy.", retryAfter: .seconds(5))
      output.onCancel = { [slots] in slots.withdraw(id) }
    }
    return output
  }

  private func start(_ prompt: Prompt, _ slot: CommandSlot, _ output: ModelOutput, _ reactor: Reactor) {
    output.refusalWhileWaiting = nil
    output.onCancel = nil
    reactor.spawn { [words, environment, onLine] in
      guard !output.isFinished else { return }
      do throws(SystemError) {
        let process = try await Self.starting.run { () throws(SystemError) in
          let name = words.first ?? ""
          guard let program = CommandWords.find(name, in: environment["PATH"]) else {
            throw SystemError("start \(name)", code: ENOENT)
          }
          return try ChildProcess(program, words, environment: environment, input: Self.input(for: prompt))
        }
        try CommandRun(process, slot, output, onLine, on: reactor).begin()
      } catch { output.fail(Self.failure(error)) }
    }
  }

  private static func failure(_ error: SystemError) -> GeneratorError {
    if [EMFILE, ENFILE, EAGAIN, ENOMEM].contains(error.code) {
      return GeneratorError(
        .overloaded, "The server has no capacity to start the model.", detail: "\(error)", retryAfter: .seconds(5))
    }
    return GeneratorError(.failed, "The model could not be started.", detail: "\(error)")
  }

  /// Returns the prompt as the program reads it: one line.
  static func input(for prompt: Prompt) -> [UInt8] {
    var members: JSON.Members = [:]
    members["messages"] = prompt.messagesJSON
    members["model"] = prompt.model.map(JSON.string)
    members["max_tokens"] = prompt.maximumTokens.map(JSON.integer)
    return JSON.object(members).encoded + [0x0A]
  }
}
