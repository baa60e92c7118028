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
  /// It runs in a task on the event loop of its stream, so it must not block. The task is cancelled when the stream
  /// terminates early: its client disconnected, it was stopped, or a limit in time was reached. What it yields then is
  /// discarded.
  ///
  /// - Returns: why the response is complete, and what it used. A reason that is not one of OpenAI's five fails the stream.
  /// - Throws: ``GeneratorError`` to choose what the client is told. Any other error fails the stream with
  ///   `upstream_error`, and only the log has its description. Thrown before the first ``GeneratorOutput/yield(_:)`` or
  ///   ``GeneratorOutput/accept()``, it becomes an HTTP status instead of a record in the stream.
  nonisolated(nonsending) func generate(_ prompt: Prompt, to output: GeneratorOutput) async throws -> Completion
}

/// Where a ``Generator`` yields its text to. Belongs to the task that it was given to.
public struct GeneratorOutput {
  private let output: ModelOutput
  private let room: Waiter

  fileprivate init(_ output: ModelOutput, room: Waiter) {
    self.output = output
    self.room = room
  }

  /// Declares that a response will follow: the client gets the head of its stream now instead of with the first text.
  /// Without effect after the first time.
  public func accept() { output.accept() }

  /// Yields the next part of the text, of any size; an empty one is ignored. Waits while the reader is 64 KiB behind.
  ///
  /// - Throws: `CancellationError` when the stream has terminated: let it through.
  public func yield(_ text: String) async throws {
    output.yield(text)
    while !output.isFinished, output.isFull { await room.wait() }
    if output.isFinished { throw CancellationError() }
  }

  /// Reports that the model works though it has no text yet, because it reasons for example. Limits in time take it
  /// for a sign of life. Accepts, as ``accept()`` does.
  public func noteActivity() {
    output.accept()
    output.noteActivity()
  }
}

/// What the loop starts for each response, without a task of its own: the form that built-in generators have.
package protocol CallbackGenerator: Sendable {
  /// Begins to respond to `prompt` on the calling loop, and returns at once. What comes of it, errors included, comes
  /// through the ``ModelOutput``.
  func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput

  /// The models that can be requested, as objects of OpenAI's API. Nil when the generator has no list.
  nonisolated(nonsending) func models(on reactor: Reactor) async throws(GeneratorError) -> [JSON]?
}

extension CallbackGenerator {
  package nonisolated(nonsending) func models(on reactor: Reactor) async throws(GeneratorError) -> [JSON]? { nil }
}

/// Runs a ``Generator`` in a task for each response.
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
            .failed, "The model server ended the response before it was complete.",
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
