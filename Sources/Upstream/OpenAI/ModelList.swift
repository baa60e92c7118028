import Bytes
import CCurl
import EventLoop
import JSON

/// One request for the models of an OpenAI-compatible API: `GET …/models`. Belongs to its loop.
///
/// The transfer keeps it, and is kept by the multi until it is complete.
final class ModelList: CurlTransferDelegate {
  private let transfer: CurlTransfer
  private let multi: CurlMulti
  private let reactor: Reactor
  private let completed = Waiter()
  private var head: CurlResponseHead?
  private var body: [UInt8] = []
  private var result: Result<[JSON], GeneratorError>?

  private static let timeout: Duration = .seconds(10)
  private static let maximumBytes = 4 << 20

  init(_ transfer: CurlTransfer, _ multi: CurlMulti, on reactor: Reactor) {
    self.transfer = transfer
    self.multi = multi
    self.reactor = reactor
  }

  /// Sends the request and waits for the response, 10 seconds at most.
  ///
  /// - Returns: the objects of the list as they came; none when the API has no list.
  /// - Throws: ``GeneratorError/Code/failed`` when the server cannot be reached or fails, ``GeneratorError/Code/timedOut``.
  func models() async throws(GeneratorError) -> [JSON] {
    transfer.delegate = self
    multi.add(transfer)
    let cancel = { self.complete(.failure(.cancelled)) }
    let timer = reactor.schedule(after: Self.timeout) {
      self.complete(.failure(GeneratorError(.timedOut, "Listing the models of the model server timed out.")))
    }
    defer {
      timer.cancel()
      // Without effect when it is complete.
      multi.remove(transfer)
    }
    return try await reactor.onCancel(cancel) { () throws(GeneratorError) in
      while true {
        if let result { return try result.get() }
        await completed.wait()
      }
    }
  }

  func didReceiveHead(_ head: CurlResponseHead) -> Bool {
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

  func didComplete(_ result: CURLcode, _ message: String) {
    guard result == CURLE_OK, let head else {
      return complete(
        .failure(GeneratorError(.failed, "The model server could not be reached.", detail: message)))
    }
    switch head.status {
    case 200..<300: complete(.success(Self.models(in: body)))
    // There is no such list.
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

  /// The objects that have an id; of a body that is no list there are none.
  static func models(in body: [UInt8]) -> [JSON] {
    guard case .array(let models)? = (try? JSON(parsing: body))?["data"] else { return [] }
    return models.filter { $0["id"]?.string != nil }
  }
}
