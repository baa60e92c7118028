import Bytes
import EventLoop
import JSON

/// One request for the models of an OpenAI-compatible API: `GET …/models`. Belongs to its loop.
///
/// The client retains this object until the exchange ends.
final class ModelList: HTTPExchangeDelegate {
  private let request: HTTPRequest
  private let client: any HTTPClient
  private let reactor: Reactor
  private let completed = Waiter()
  private var head: HTTPResponseHead?
  private var body: [UInt8] = []
  private var result: Result<[JSON], GeneratorError>?

  private static let timeout: Duration = .seconds(10)
  private static let maximumBytes = 4 << 20

  init(_ request: HTTPRequest, _ client: any HTTPClient, on reactor: Reactor) {
    self.request = request
    self.client = client
    self.reactor = reactor
  }

  /// Sends the request and waits for the response, for at most 10 seconds.
  ///
  /// - Returns: the objects of the list, unchanged. Empty if the API has no list.
  /// - Throws: ``GeneratorError/Code/failed`` if the server cannot be reached or fails,
  ///   ``GeneratorError/Code/timedOut``, or ``GeneratorError/Code/cancelled``.
  func models() async throws(GeneratorError) -> [JSON] {
    guard let exchange = client.start(request, delegate: self) else { throw .invalidURL }
    let cancel = { self.complete(.failure(.cancelled)) }
    let timer = reactor.schedule(after: Self.timeout) {
      self.complete(.failure(GeneratorError(.timedOut, "Listing the models of the model server timed out.")))
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
    return !head.isEncoded
  }

  func didReceiveBody(_ body: borrowing Span<UInt8>) -> Bool {
    guard self.body.count + body.count <= Self.maximumBytes else {
      complete(.failure(GeneratorError(.failed, "The model server's list of models exceeds the size limit.")))
      return true
    }
    self.body.append(body)
    return true
  }

  func didComplete(_ failure: String?) {
    guard failure == nil, let head else {
      return complete(.failure(GeneratorError(.failed, "The model server could not be reached.", detail: failure)))
    }
    switch head.status {
    case 200..<300: complete(.success(Self.models(in: body)))
    // The API has no list of models.
    case 404, 405, 501: complete(.success([]))
    default:
      complete(
        .failure(GeneratorError(.failed, "The model server did not list its models.", detail: "status \(head.status)")))
    }
  }

  private func complete(_ result: Result<[JSON], GeneratorError>) {
    if self.result == nil { self.result = result }
    completed.wake()
  }

  /// Returns the objects that have an id. Empty if `body` is not a list of models.
  static func models(in body: [UInt8]) -> [JSON] {
    guard case .array(let models)? = (try? JSON(parsing: body))?["data"] else { return [] }
    return models.filter { $0["id"]?.string != nil }
  }
}
