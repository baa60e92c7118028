import CCurl
import EventLoop

/// One question to an OpenAI-compatible API: the transfer at one end, the output at the other. Belongs to its loop.
///
/// The transfer keeps it, and is kept by the multi until it is over.
final class ChatCompletion: CurlTransferDelegate {
  private enum Phase {
    case waitingForHead
    case streaming
    /// A status other than 2xx, or a body that is not a stream: kept for the log, up to a limit.
    case errorResponse(CurlResponseHead)
    case finished
  }

  private let transfer: CurlTransfer
  private let output: ModelOutput
  private let connections: OpenAIGenerator.Connections
  private let reactor: Reactor
  private var reader: CompletionReader
  private var phase = Phase.waitingForHead
  private var errorBody: [UInt8] = []
  /// Of the connection first, of the end of the body later.
  private var deadline: Timer?
  private var isInGracePeriod = false
  private var isPaused = false
  private var isMultiplexed = false

  /// How long the end of the body is waited for once the text is complete: it lets the connection be used again.
  private static let gracePeriod: Duration = .milliseconds(250)
  private static let connectTimeout: Duration = .seconds(10)
  private static let maximumErrorBodyBytes = 4096
  private static let maximumUnpausedBytes = 4 << 20

  init(
    _ transfer: CurlTransfer, _ output: ModelOutput, _ connections: OpenAIGenerator.Connections, reactor: Reactor
  ) {
    self.transfer = transfer
    self.output = output
    self.connections = connections
    self.reactor = reactor
    self.reader = CompletionReader(chunks: connections.chunks, maximumTextBytes: connections.maximumTextBytes)
  }

  func begin() {
    output.onCancel = { [unowned self] in stop() }
    output.onDrain = { [unowned self] in
      if isPaused {
        isPaused = false
        transfer.resume()
      }
    }
    transfer.delegate = self
    connections.multi.add(transfer)
    // Not by CURLOPT_CONNECTTIMEOUT: libcurl keeps its timers in a splay tree, which every event of every transfer
    // would turn over for as long as they are pending.
    deadline = reactor.schedule(after: Self.connectTimeout) { [unowned self] in
      if case .waitingForHead = phase, !transfer.isConnected {
        fail(GeneratorError(.timedOut, "Connecting to the model server timed out."))
      }
    }
  }

  // MARK: From the transfer

  func didReceiveHead(_ head: CurlResponseHead) -> Bool {
    guard case .waitingForHead = phase else { return true }
    let isSuccess = (200..<300).contains(head.status)
    let isStream = head.contentType.isEmpty || head.contentType.hasPrefix("text/event-stream")
    if head.isEncoded {
      // libcurl would unpack it, whatever it becomes.
      fail(
        isSuccess
          ? GeneratorError(.failed, "The model server's response has an encoding that was not requested.")
          : responseError(head))
      return false
    }
    if isSuccess, isStream {
      phase = .streaming
      isMultiplexed = transfer.isMultiplexed
      output.accept()
    } else {
      phase = .errorResponse(head)
      // The rest of the body is wanted for its words only.
      startGracePeriod(Self.gracePeriod)
    }
    return true
  }

  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool {
    switch phase {
    case .waitingForHead, .finished: return true
    case .errorResponse:
      for index in body.indices where errorBody.count < Self.maximumErrorBodyBytes { errorBody.append(body[index]) }
      if errorBody.count == Self.maximumErrorBodyBytes { startGracePeriod(.zero) }
      return true
    case .streaming:
      if output.isFull {
        // Not on a connection with other transfers: libcurl 7.88 stops reading for all of them, and takes tens of
        // megabytes for the one. What waits is limited instead.
        guard isMultiplexed else {
          isPaused = true
          return false
        }
        if output.queuedBytes > Self.maximumUnpausedBytes {
          fail(GeneratorError(.failed, "The client reads too slowly."))
          return true
        }
      }
      do throws(GeneratorError) {
        try reader.feed(body, emit: { output.yield($0) }, onActivity: { output.noteActivity() })
        if reader.isComplete { try finish() }
      } catch {
        fail(error)
      }
      if reader.hasFinishReason, !isInGracePeriod { startGracePeriod(Self.gracePeriod) }
      return true
    }
  }

  func didComplete(_ result: CURLcode, _ message: String) {
    switch phase {
    case .finished: break
    case .errorResponse(let head): fail(responseError(head))
    case .streaming where result == CURLE_OK || reader.hasFinishReason:
      do throws(GeneratorError) { try finish() } catch { fail(error) }
    case .streaming:
      fail(GeneratorError(.truncated, "The connection to the model server was lost mid-response.", detail: message))
    case .waitingForHead:
      fail(GeneratorError(.failed, "The model server could not be reached.", detail: message))
    }
    releaseCallbacks()
  }

  // MARK: The end

  private func finish() throws(GeneratorError) {
    let completion = try reader.completion()
    phase = .finished
    output.finish(completion)
    if !isInGracePeriod || connections.isShortOfDescriptors() { startGracePeriod(Self.gracePeriod) }
  }

  private var isFinished: Bool {
    if case .finished = phase { true } else { false }
  }

  private func fail(_ error: GeneratorError) {
    phase = .finished
    output.fail(error)
    // Not at once: libcurl may be calling.
    startGracePeriod(.zero)
  }

  /// The body should end now, or something is wrong with its sender: it is not waited for any longer than this.
  private func startGracePeriod(_ time: Duration) {
    isInGracePeriod = true
    deadline?.cancel()
    // The request has been answered, and gives the descriptor back that it had for this connection.
    let time = isFinished && connections.isShortOfDescriptors() ? .zero : time
    deadline = reactor.schedule(after: time) { [unowned self] in
      switch phase {
      case .streaming: try? finish()
      case .errorResponse(let head): fail(responseError(head))
      case .waitingForHead, .finished: break
      }
      stop()
    }
  }

  /// Ends the transfer at once.
  private func stop() {
    phase = .finished
    connections.multi.remove(transfer)
    releaseCallbacks()
  }

  private func releaseCallbacks() {
    deadline?.cancel()
    output.onCancel = nil
    output.onDrain = nil
  }

  private func responseError(_ head: CurlResponseHead) -> GeneratorError {
    let (bytes, status) = (errorBody, head.status)
    // Its kind only: the words of an error may repeat what the user said.
    let kind = connections.chunks.read(bytes.span)?.errorKind ?? ""
    let detail = "status \(status)" + (kind.isEmpty ? "" : ", \(kind)")
    if status == 429 {
      return GeneratorError(
        .rateLimited, "The model server is rate limiting requests.", detail: detail, retryAfter: head.retryAfter)
    }
    if (200..<300).contains(status) {
      return GeneratorError(.failed, "The model server did not return an event stream.", detail: detail)
    }
    var error = GeneratorError(
      .failed, "The model server returned status \(status).", detail: detail, retryAfter: head.retryAfter)
    // What it does not like now it will not like later; but 408 and 409 are about the moment.
    error.isRetriable = !(400..<500).contains(status) || status == 408 || status == 409
    return error
  }
}
