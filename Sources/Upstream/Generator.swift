import EventLoop
import JSON

/// A source of model output: a model, or something that behaves like one.
///
///     struct Parrot: Generator {
///       nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion {
///         for word in (prompt.messages.last?.content ?? "").split(separator: " ") {
///           try await output.yield("\(word) ")
///         }
///         return Completion(.stop)
///       }
///     }
///
/// One value serves all requests, on all event loops.
public protocol Generator: Sendable {
  /// Generates the response to `prompt`: yields its text in order and returns when it is complete.
  ///
  /// It runs in a task on the event loop of its stream, so it must not block. The task is cancelled if the stream
  /// terminates early: the client disconnected, the stream was stopped, or a time limit was reached. Text that it
  /// yields after that is discarded.
  ///
  /// - Returns: the finish reason and the token usage. A reason other than OpenAI's five fails the stream.
  /// - Throws: ``GeneratorError`` to choose the error that the client receives. Any other error fails the stream with
  ///   `upstream_error`, and its description appears only in the log. An error before the first
  ///   ``GeneratorOutput/yield(_:)-(String)`` or ``GeneratorOutput/accept()`` becomes an HTTP status instead of a record
  ///   in the stream.
  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion
}

/// The output to which a ``Generator`` yields its text. Belongs to the task that received it.
public struct GeneratorOutput {
  private let output: ModelOutput
  private let room: Waiter

  fileprivate init(_ output: ModelOutput, room: Waiter) {
    self.output = output
    self.room = room
  }

  /// Declares that a response will follow: the client receives the head of its stream now instead of with the first
  /// text. Has no effect after the first call.
  public func accept() { output.accept() }

  /// Yields the next delta, of any size; an empty one is ignored. Waits while the reader is 64 KiB behind.
  ///
  /// - Throws: `CancellationError` if the stream has terminated. Propagate it.
  public func yield(_ text: String) async throws {
    output.yield(text)
    try await waitForRoom()
  }

  /// Yields reasoning, a refusal, a call of a tool or a source. Waits and throws like ``yield(_:)-(String)``.
  public func yield(_ part: OutputPart) async throws {
    output.yield(OutputChunk(part))
    try await waitForRoom()
  }

  private func waitForRoom() async throws {
    while !output.isFinished, output.isFull { await room.wait() }
    if output.isFinished { throw CancellationError() }
  }

  /// Reports that the model is active although it has no output yet. Counts as output for the first-token and idle
  /// deadlines. Also accepts, like ``accept()``.
  public func noteActivity() {
    output.accept()
    output.noteActivity()
  }
}

/// A generator that the loop starts for each response without a task of its own. The built-in generators have this
/// form.
package protocol CallbackGenerator: Sendable {
  /// Starts to respond to `prompt` on the calling loop, and returns at once. All results, including errors, are
  /// delivered through the ``ModelOutput``.
  func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput

  /// Returns the models that can be requested, as objects of OpenAI's API. Nil if the generator has no list.
  nonisolated(nonsending) func models(on reactor: Reactor) async throws(GeneratorError) -> [JSON]?

  /// Sends a request for embeddings as it is, and returns the response. Nil if the generator has none.
  ///
  /// - Parameters:
  ///   - body: JSON of OpenAI's API.
  ///   - timeout: the maximum time until the response is complete.
  nonisolated(nonsending) func embeddings(
    _ body: [UInt8], within timeout: Duration, on reactor: Reactor
  ) async throws(GeneratorError) -> [UInt8]?

  /// Releases what it holds on a loop as soon as its responses there have ended. It is not started again.
  func retire(on reactor: Reactor)
}

extension CallbackGenerator {
  package nonisolated(nonsending) func models(on reactor: Reactor) async throws(GeneratorError) -> [JSON]? { nil }

  package nonisolated(nonsending) func embeddings(
    _ body: [UInt8], within timeout: Duration, on reactor: Reactor
  ) async throws(GeneratorError) -> [UInt8]? { nil }

  package func retire(on reactor: Reactor) {}
}

/// An adapter that runs a ``Generator`` in one task per response.
package struct TaskGenerator: CallbackGenerator {
  private let generator: any Generator

  package init(_ generator: any Generator) { self.generator = generator }

  package func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput {
    let output = ModelOutput()
    let room = Waiter()
    output.onDrain = { room.wake() }
    let task = reactor.spawn { [generator] in
      do {
        let completion = try await generator.generate(prompt, to: GeneratorOutput(output, room: room))
        guard completion.finishReason.isCompletion else {
          throw GeneratorError(
            .failed, "The model server stopped for a reason other than completion.",
            detail: "finish_reason \(completion.finishReason.rawValue)")
        }
        output.finish(completion)
      } catch let error as GeneratorError {
        output.fail(error)
      } catch {
        output.fail(GeneratorError(.failed, "The model server failed.", detail: "\(error)"))
      }
    }
    output.onCancel = {
      task.cancel()
      room.wake()
    }
    return output
  }
}
