import Bytes
import EventLoop

/// One request to an OpenAI-compatible API whose response is not streamed. Belongs to its loop.
///
/// The client retains this object until the exchange ends.
final class WholeExchange: HTTPExchangeDelegate {
  private let request: HTTPRequest
  private let connections: OpenAIGenerator.Connections
  private let reactor: Reactor
  private let maximumBytes: Int
  private let completed = Waiter()
  private var head: HTTPResponseHead?
  private var body: [UInt8] = []
  private var result: Result<(head: HTTPResponseHead, body: [UInt8]), GeneratorError>?

  /// - Parameter maximumBytes: the maximum size of the response's body.
  init(
    _ request: HTTPRequest, _ connections: OpenAIGenerator.Connections, maximumBytes: Int, on reactor: Reactor
  ) {
    self.request = request
    self.connections = connections
    self.maximumBytes = maximumBytes
    self.reactor = reactor
  }

  /// Sends the request and waits for the response, whatever its status, for at most `timeout`.
  ///
  /// - Throws: ``GeneratorError/Code/failed`` if the server cannot be reached or the response is too large,
  ///   ``GeneratorError/Code/timedOut``, or ``GeneratorError/Code/cancelled``.
  func response(within timeout: Duration) async throws(GeneratorError) -> (head: HTTPResponseHead, body: [UInt8]) {
    guard let exchange = connections.start(request, delegate: self, on: reactor) else { throw .invalidURL }
    let cancel = { self.complete(.failure(.cancelled)) }
    let timer = reactor.schedule(after: timeout) {
      self.complete(.failure(GeneratorError(.timedOut, "The model server did not respond in time.")))
    }
    defer {
      timer.cancel()
      // Has no effect on an exchange that has ended.
      exchange.cancel()
    }
    return try await reactor.onCancel(cancel) { () throws(GeneratorError) in
      while true {
        if let result { return try result.get() }
        await completed.wait()
      }
    }
  }

  func didReceiveHead(_ head: HTTPResponseHead) -> Bool {
    self.head = head
    return head.coding == .none
  }

  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool {
    guard self.body.count + body.count <= maximumBytes else {
      complete(.failure(GeneratorError(.failed, "The model server's response exceeds the size limit.")))
      return true
    }
    self.body.append(body)
    return true
  }

  func didComplete(_ failure: String?) {
    guard failure == nil, let head else {
      return complete(.failure(.unreachable(failure)))
    }
    complete(.success((head, body)))
  }

  private func complete(_ result: Result<(head: HTTPResponseHead, body: [UInt8]), GeneratorError>) {
    if self.result == nil { self.result = result }
    completed.wake()
  }
}
