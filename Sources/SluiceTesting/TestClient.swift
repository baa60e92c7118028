import EventLoop
import EventStream
import FastCGI
import Sluice

/// A client that passes requests to an application in memory, as the web server would. There is no web server and no
/// socket; all other code is the same. Requests run on the client's own event loop; any number can be in flight.
///
///     let application = try Application(environment: ["SLUICE_AUTH": "none", "SLUICE_STATE": directory])
///     application.stream("GET", "/hello") { context, stream in try await stream.send("hello") }
///     let response = try await TestClient(application).send("GET", "/hello")
///     #expect(response.events.map(\.type) == ["token", "done"])
public final class TestClient: Sendable {
  private let application: Application
  private let thread: LoopThread

  /// Creates a client and starts its loop.
  ///
  /// - Throws: if the system cannot provide a thread or a descriptor.
  public convenience init(_ application: Application) throws { try self.init(application, clock: .continuous) }

  /// Creates a client whose loop reads the time from `clock`.
  package init(_ application: Application, clock: LoopClock) throws {
    self.application = application
    thread = try LoopThread(EventLoop(name: "test client", clock: clock))
  }

  deinit { thread.stop() }

  /// Sends a request and returns the complete response. When the task is cancelled, the client disconnects and returns
  /// the part received so far.
  ///
  /// - Parameters:
  ///   - method: the HTTP method, in upper case.
  ///   - path: the percent-encoded path, with the query if there is one, such as `/rooms/a%20b?limit=5`.
  ///   - headers: the client's header fields.
  ///   - body: the JSON body; if present, `Content-Type` is set.
  ///   - parameters: further FastCGI parameters from the web server, such as `REMOTE_USER` or a setting of the
  ///     location.
  public func send(
    _ method: String, _ path: String, headers: [String: String] = [:], body: JSON? = nil,
    parameters: [String: String] = [:]
  ) async throws -> TestResponse {
    var all = Parameters()
    all["REQUEST_METHOD"] = method
    all["REQUEST_URI"] = path
    all["QUERY_STRING"] = path.firstIndex(of: "?").map { String(path[$0...].dropFirst()) } ?? ""
    if body != nil { all["CONTENT_TYPE"] = "application/json" }
    for (name, value) in headers {
      let name = name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
      all[name == "CONTENT_TYPE" ? name : "HTTP_\(name)"] = value
    }
    for (name, value) in parameters { all[name] = value }
    let request = Request(parameters: all, body: body?.encoded ?? [])
    let application = application
    let transport = OnLoop()
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        thread.loop.execute { reactor in
          let memory = MemoryTransport(on: reactor)
          memory.onClose = { [unowned memory] in
            continuation.resume(returning: TestResponse(memory.text, isComplete: memory.isFinished))
          }
          unsafe transport.transport = memory
          application.respond(
            request, ResponseWriter(memory, isHeadRequest: method == "HEAD", writeTimeout: .seconds(10)), on: reactor)
        }
      }
    } onCancel: {
      thread.loop.execute { _ in unsafe transport.transport?.disconnect() }
    }
  }
}

/// A reference to the transport of a request, accessed only on the client's loop.
private final class OnLoop: Sendable {
  nonisolated(unsafe) weak var transport: MemoryTransport?
}

/// A response as received by a client.
public struct TestResponse: Sendable {
  /// An event of an event stream.
  public struct Event: Sendable {
    /// The type of the event; `message` if the record names none.
    public let type: String
    /// The data of the event, its lines joined.
    public let data: String
    /// The data as JSON; nil if it is not valid JSON.
    public var json: JSON? { try? JSON(parsing: Array(data.utf8)) }
  }

  /// The HTTP status; 0 if there is no head.
  public let status: Int
  /// The header fields, by lower-case name.
  public let headers: [String: String]
  /// The body, as text.
  public let body: String
  /// Whether the response was finished. A client sees an aborted response as a broken connection.
  public let isComplete: Bool

  /// The body as JSON; nil if it is not valid JSON.
  public var json: JSON? { try? JSON(parsing: Array(body.utf8)) }

  /// The events of an event stream, without comments.
  public var events: [Event] {
    var parser = EventStreamParser()
    let events = (try? parser.events(in: Array(body.utf8).span)) ?? []
    return events.map { Event(type: $0.type, data: $0.data) }
  }

  init(_ text: String, isComplete: Bool) {
    self.isComplete = isComplete
    // Searches bytes, because CRLF is a single character of a Swift string.
    let bytes = Array(text.utf8)
    let end = bytes.firstRange(of: Array("\r\n\r\n".utf8))
    let head = String(decoding: bytes[..<(end?.lowerBound ?? bytes.endIndex)], as: UTF8.self)
    body = end.map { String(decoding: bytes[$0.upperBound...], as: UTF8.self) } ?? ""
    var headers: [String: String] = [:]
    for line in head.split(separator: "\r\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { continue }
      headers[parts[0].lowercased()] = String(parts[1].drop { $0 == " " })
    }
    status = headers["status"].flatMap { Int($0.prefix(3)) } ?? 0
    headers["status"] = nil
    self.headers = headers
  }
}
