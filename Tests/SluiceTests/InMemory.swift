import EventLoop
import FastCGI
import JSON
import Sluice
import SluiceTesting

/// An application that runs in memory, with a client and a store of its own.
struct InMemory {
  let directory = TemporaryDirectory()
  let application: Application
  let client: TestClient

  init(
    generator: (any Generator)? = nil, authenticator: (any Authenticator)? = nil, turnStore: (any TurnStore)? = nil,
    clock: LoopClock = .continuous, _ environment: [String: String] = [:]
  ) throws {
    var all = ["SLUICE_STATE": directory.path + "/state", "SLUICE_LOG": "error"]
    if authenticator == nil { all["SLUICE_AUTH"] = "none" }
    application = try Application(
      generator: generator, authenticator: authenticator, turnStore: turnStore,
      environment: all.merging(environment) { $1 })
    client = try TestClient(application, clock: clock)
  }

  /// A request with a chat message.
  static var chatRequest: Request {
    Request(
      parameters: ["REQUEST_METHOD": "POST", "REQUEST_URI": "/api/chat", "CONTENT_TYPE": "application/json"],
      body: JSON.object(["message": "a"]).encoded)
  }
}
