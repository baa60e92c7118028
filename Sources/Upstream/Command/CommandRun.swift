import EventLoop
import Glibc

/// One program that generates a response, from its start until nothing of its process group is left.
///
/// Belongs to its loop. Its watches retain it until then.
package final class CommandRun {
  /// Receives a line that a program has written to standard error, and its process id.
  package typealias LineHandler = @Sendable (_ pid: pid_t, _ line: String) -> Void

  private let process: ChildProcess
  private var slot: CommandSlot?
  private let output: ModelOutput
  private let reactor: Reactor
  private let onLine: LineHandler

  private var outputWatch: Watch?
  private var errorsWatch: Watch?
  private var endWatch: Watch?
  private var timer: Timer?
  private var decoder = TextDecoder()
  private var line: [UInt8] = []
  private var lastLine = ""
  /// The end of the program; nil while it runs.
  private var result: ChildProcess.Result?
  /// Whether the time for which the output of a program that has ended is read is over.
  private var isOutputOverdue = false
  private var isReadingScheduled = false
  /// Whether no process has the output open any more. What is in the pipe can still be read.
  private var isHungUp = false
  private var isKilled = false

  /// The time for which processes that a program has left behind can write to its output.
  private static let lingerTime: Duration = .seconds(1)
  /// The time between SIGTERM and SIGKILL.
  private static let terminationTime: Duration = .seconds(2)
  private static let maximumLineBytes = 1000
  /// The maximum number of reads per event, so that a fast program does not delay other streams.
  private static let maximumReads = 4

  init(
    _ process: ChildProcess, _ slot: CommandSlot, _ output: ModelOutput, _ onLine: @escaping LineHandler,
    on reactor: Reactor
  ) {
    self.process = process
    self.slot = slot
    self.output = output
    self.onLine = onLine
    self.reactor = reactor
  }

  /// Reads the program's output until it ends.
  ///
  /// - Throws: when the pipes cannot be watched. The program is killed then.
  func begin() throws(SystemError) {
    do throws(SystemError) {
      outputWatch = try reactor.watch(process.output.number, for: .readable | .edgeTriggered) { [self] ready in
        if ready.contains(.hangup) { isHungUp = true }
        if isHungUp, output.isFinished { closeOutput() } else { readOutput() }
      }
      errorsWatch = try reactor.watch(process.errors.number, for: .readable) { [self] _ in readErrors() }
      endWatch = try reactor.watch(process.end.number, for: .readable) { [self] _ in programDidEnd() }
    } catch {
      isKilled = true
      process.signalGroup(SIGKILL)
      release()
      throw error
    }
    // It may have been cancelled while the program was started.
    if output.isFinished { return terminate() }
    output.onCancel = { [self] in terminate() }
    output.onDrain = { [self] in readOutput() }
  }

  // MARK: Output

  private func readOutput() {
    guard outputWatch != nil, !isReadingScheduled else { return }
    for _ in 0..<Self.maximumReads {
      // While the output is full, the pipe fills up too, and the program waits.
      guard !output.isFinished, !output.isFull else { return }
      let count = reactor.receiveBuffer.read(from: process.output.number) { bytes in
        output.yield(decoder.decode(bytes))
      }
      if count < 0, errno == EINTR { continue }
      if count < 0, errno == EAGAIN { return isOutputOverdue ? complete() : () }
      if count <= 0 { return closeOutput() }
    }
    isReadingScheduled = true
    _ = reactor.schedule(after: .zero) { [self] in
      isReadingScheduled = false
      readOutput()
    }
  }

  private func closeOutput() {
    outputWatch.take()?.cancel()
    if result != nil { complete() }
    releaseIfEnded()
  }

  /// Completes the response. The program has ended, and its output has been read.
  private func complete() {
    guard let result, !output.isFinished else { return }
    output.yield(decoder.finish())
    outputWatch.take()?.cancel()
    if result == .exited(0) { return output.finish(Completion()) }
    output.fail(
      GeneratorError(
        .failed, "The model failed.",
        detail: "process \(process.pid): \(result)" + (lastLine.isEmpty ? "" : "; last line: \(lastLine)")))
  }

  // MARK: Messages

  private func readErrors() {
    let count = reactor.receiveBuffer.read(from: process.errors.number) { bytes in
      for index in bytes.indices {
        if bytes[index] == UInt8(ascii: "\n") {
          endLine()
        } else if line.count < Self.maximumLineBytes {
          line.append(bytes[index])
        }
      }
    }
    if count > 0 || (count < 0 && (errno == EAGAIN || errno == EINTR)) { return }
    endLine()
    errorsWatch.take()?.cancel()
    releaseIfEnded()
  }

  private func endLine() {
    let text = String(decoding: line, as: UTF8.self)
    line.removeAll(keepingCapacity: true)
    guard !text.isEmpty else { return }
    lastLine = text
    onLine(process.pid, text)
  }

  // MARK: End

  private func programDidEnd() {
    guard let result = process.result else { return }
    endWatch.take()?.cancel()
    self.result = result
    // The pipes can contain what it wrote last.
    if errorsWatch != nil { readErrors() }
    if outputWatch == nil { complete() } else { readOutput() }
    if timer == nil {
      timer = reactor.schedule(after: Self.lingerTime) { [self] in
        isOutputOverdue = true
        readOutput()
        terminate()
      }
    }
    releaseIfEnded()
  }

  /// Ends the group: with SIGTERM, and later with SIGKILL.
  private func terminate() {
    // After a cancellation, nothing more is read.
    if output.isFinished, isHungUp || slot == nil { closeOutput() }
    guard slot != nil else { return }
    process.signalGroup(SIGTERM)
    timer?.cancel()
    timer = reactor.schedule(after: Self.terminationTime) { [self] in
      isKilled = true
      process.signalGroup(SIGKILL)
      releaseIfEnded()
    }
  }

  /// Releases the process if the program has ended and nothing else has its pipes open, or can have.
  private func releaseIfEnded() {
    if result != nil, isKilled || (outputWatch == nil && errorsWatch == nil) { release() }
  }

  private func release() {
    timer?.cancel()
    timer = nil
    endWatch.take()?.cancel()
    errorsWatch.take()?.cancel()
    // What is in the pipe is still read, if a slow reader has not got all of it.
    if output.isFinished { outputWatch.take()?.cancel() }
    isOutputOverdue = true
    process.endGroup()
    slot = nil
  }
}
