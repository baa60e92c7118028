import Bytes
import EventLoop

/// One request to an OpenAI-compatible API, which connects an HTTP exchange with an output. Belongs to its loop.
///
/// The client retains this object until the exchange ends.
final class ChatCompletion: HTTPExchangeDelegate {
  private enum Phase {
    case waitingForHead
    /// The type of the body does not say whether it is a stream or one object: its first byte does.
    case undecided(HTTPResponseHead)
    case streaming
    /// The body is one JSON object, although a stream was requested. It is buffered.
    case wholeResponse(HTTPResponseHead)
    /// The status is not 2xx or the body is not an event stream. The start of the body is buffered for the log.
    case errorResponse(HTTPResponseHead)
    case finished
  }

  /// The exchange, from ``begin(_:)`` on.
  private var exchange: (any HTTPExchange)?
  private let output: ModelOutput
  private let connections: OpenAIGenerator.Connections
  private let reactor: Reactor
  private var reader: CompletionReader
  private var phase = Phase.waitingForHead
  /// The body that is buffered.
  private var wholeBody: [UInt8] = []
  /// The API key of the request, which no client must see.
  private var key: Substring?
  /// The connect timeout, later the grace period.
  private var deadline: Timer?
  private var isInGracePeriod = false
  /// Whether the grace period is that for choices that have not begun.
  private var isWaitingForChoices = false
  private var isPaused = false
  private var isMultiplexed = false

  /// The time to wait for the end of the body once the text is complete, so that the connection can be reused.
  private static let gracePeriod: Duration = .milliseconds(250)
  /// The time to wait for a choice that has not begun when all others are complete.
  private static let choicesPeriod: Duration = .seconds(5)
  private static let connectTimeout: Duration = .seconds(10)
  private static let maximumErrorBodyBytes = 16 * 1024
  private static let maximumUnpausedBytes = 4 << 20

  /// - Parameter choices: the number of choices that the request asks for.
  init(_ output: ModelOutput, _ connections: OpenAIGenerator.Connections, choices: Int, reactor: Reactor) {
    self.output = output
    self.connections = connections
    self.reactor = reactor
    self.reader = CompletionReader(
      chunks: connections.chunks, choices: choices, maximumTextBytes: connections.maximumTextBytes)
  }

  func begin(_ request: consuming HTTPRequest) {
    output.onCancel = { [unowned self] in stop() }
    output.onDrain = { [unowned self] in
      if isPaused {
        isPaused = false
        exchange?.resume()
      }
    }
    key = request.bearerToken
    exchange = connections.start(request, delegate: self, on: reactor)
    guard let exchange else {
      output.fail(.invalidURL)
      return releaseCallbacks()
    }
    // A loop timer, not CURLOPT_CONNECTTIMEOUT: libcurl rebalances its timer tree on every event of every transfer
    // while one is pending.
    deadline = reactor.schedule(after: Self.connectTimeout) { [unowned self] in
      if case .waitingForHead = phase, !exchange.isConnected {
        var error = GeneratorError(.timedOut, "Connecting to the model server timed out.")
        error.cause = .connectTimeout
        fail(error)
      }
    }
  }

  // MARK: HTTPExchangeDelegate

  func didReceiveHead(_ head: HTTPResponseHead) -> Bool {
    guard case .waitingForHead = phase else { return true }
    let isSuccess = (200..<300).contains(head.status)
    let type = head.contentType.prefix { $0 != ";" && $0 != " " }
    if head.coding != .none {
      fail(
        isSuccess
          ? GeneratorError(.failed, "The model server's response has an encoding that was not requested.")
          : responseError(head))
      return false
    }
    isMultiplexed = exchange?.isMultiplexed ?? false
    if isSuccess, type == "text/event-stream" {
      phase = .streaming
      output.accept()
    } else if isSuccess, ["", "text/plain"].contains(type) {
      // Some servers stream as text/plain.
      phase = .undecided(head)
    } else if isSuccess, head.contentType.hasPrefix("application/json") {
      // Accepted with its text: it can be an error.
      phase = .wholeResponse(head)
    } else {
      phase = .errorResponse(head)
      // The rest of the body is needed only for its error kind.
      startGracePeriod(Self.gracePeriod)
    }
    return true
  }

  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool {
    if case .undecided(let head) = phase { decide(head, by: body) }
    switch phase {
    case .waitingForHead, .undecided, .finished: return true
    case .errorResponse:
      wholeBody.append(body.extracting(first: Self.maximumErrorBodyBytes - wholeBody.count))
      if wholeBody.count == Self.maximumErrorBodyBytes { startGracePeriod(.zero) }
      return true
    case .wholeResponse:
      wholeBody.append(body)
      if wholeBody.count > reader.maximumEventBytes { fail(CompletionReader.tooLong(reader.maximumEventBytes)) }
      return true
    case .streaming:
      do throws(GeneratorError) {
        try reader.feed(body, emit: { output.yield($0) }, emitChunk: { output.yield($0) })
        if reader.isComplete { try finish() }
      } catch {
        fail(error)
      }
      updateGracePeriod()
      return canReceiveMore()
    }
  }

  /// Decides by the first byte whether a body of an unclear type is one object.
  private func decide(_ head: HTTPResponseHead, by body: borrowing Span<UInt8>) {
    for index in body.indices where ![0x20, 0x09, 0x0A, 0x0D].contains(body[index]) {
      let isObject = body[index] == UInt8(ascii: "{")
      phase = isObject ? .wholeResponse(head) : .streaming
      if !isObject { output.accept() }
      return
    }
  }

  /// Waits for the end of the body once all choices are complete: longer for choices that have not begun.
  private func updateGracePeriod() {
    if reader.isFinished {
      if !isInGracePeriod { startGracePeriod(Self.gracePeriod) }
    } else if reader.canEnd {
      if !isWaitingForChoices { startGracePeriod(Self.choicesPeriod) }
      isWaitingForChoices = true
    } else if isWaitingForChoices {
      deadline?.cancel()
      (isWaitingForChoices, isInGracePeriod) = (false, false)
    }
  }

  /// Returns false to pause the response while the reader is slow.
  private func canReceiveMore() -> Bool {
    guard output.isFull else { return true }
    // Never paused on an HTTP/2 connection: libcurl 7.88 stops reading for all of its transfers, and buffers tens of
    // megabytes for this one. The size of the queue is limited instead.
    guard isMultiplexed else {
      isPaused = true
      return false
    }
    if output.queuedBytes > Self.maximumUnpausedBytes {
      fail(GeneratorError(.failed, "The client reads too slowly."))
    }
    return true
  }

  func didComplete(_ failure: String?) {
    switch phase {
    case .finished: break
    case .errorResponse(let head): fail(responseError(head))
    case .wholeResponse(let head) where failure == nil:
      do throws(GeneratorError) {
        let isCompletion = try reader.read(
          whole: wholeBody.span, emit: { output.yield($0) }, emitChunk: { output.yield($0) })
        guard isCompletion else { throw responseError(head) }
        try finish()
      } catch { fail(error) }
    case .streaming where failure == nil || reader.canEnd:
      do throws(GeneratorError) { try finish() } catch { fail(error) }
    case .undecided where failure == nil: fail(GeneratorError(.failed, "The model server sent an empty response."))
    case .streaming, .wholeResponse, .undecided:
      fail(GeneratorError(.truncated, "The connection to the model server was lost mid-response.", detail: failure))
    case .waitingForHead:
      fail(.unreachable(failure))
    }
    releaseCallbacks()
  }

  // MARK: Termination

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
    // Deferred, because the exchange is on the call stack.
    startGracePeriod(.zero)
  }

  /// Waits up to `time` for the end of the body, then cancels the exchange.
  private func startGracePeriod(_ time: Duration) {
    isInGracePeriod = true
    deadline?.cancel()
    // The request is finished: if descriptors are short, its connection is closed at once.
    let time = isFinished && connections.isShortOfDescriptors() ? .zero : time
    deadline = reactor.schedule(after: time) { [unowned self] in
      switch phase {
      case .streaming: try? finish()
      case .errorResponse(let head): fail(responseError(head))
      case .waitingForHead, .undecided, .wholeResponse, .finished: break
      }
      stop()
    }
  }

  /// Cancels the exchange at once.
  private func stop() {
    phase = .finished
    exchange?.cancel()
    releaseCallbacks()
  }

  private func releaseCallbacks() {
    deadline?.cancel()
    output.onCancel = nil
    output.onDrain = nil
  }

  private func responseError(_ head: HTTPResponseHead) -> GeneratorError {
    GeneratorError(head, body: wholeBody, connections, key: key)
  }
}
