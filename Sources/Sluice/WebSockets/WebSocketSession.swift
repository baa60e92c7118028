import EventLoop
import FastCGI
import JSON
import WebSocket

/// One WebSocket and its streams: decides about the handshake, then starts, stops and resumes what the client asks for.
///
/// Belongs to its loop.
final class WebSocketSession: WebSocketDelegate {
  private let connection: WebSocketConnection
  private let dispatcher: RequestDispatcher
  private let services: Services
  private let reactor: Reactor
  /// The handshake, as the request that each stream is based on.
  private var handshake = Request(parameters: [:])
  private var isOpen = false
  private var slot: StreamSlot?
  /// The running streams, by the client's ids.
  private var streams: [String: WebSocketStream] = [:]
  private var idleTimer: Timer?
  /// The code with which the connection is closed when no stream runs on it any more.
  private var closeCode: CloseCode?
  /// The messages that wait for a large one to be parsed, or for a decision. No more are read meanwhile.
  private var queue: [[UInt8]] = []
  private var isProcessing = false
  /// The number of streams that have been neither accepted nor refused.
  private var undecided = 0
  private let decided = Waiter()

  /// The maximum time without a stream.
  private static let idleTimeout: Duration = .seconds(300)
  private static let maximumBytesOnLoop = 4 * 1024
  /// The maximum number of undecided streams, so that one client cannot take all threads and descriptors.
  private static let maximumUndecided = 8
  private static let subprotocol = "sluice.v1"

  init(_ connection: WebSocketConnection, _ dispatcher: RequestDispatcher, _ services: Services, on reactor: Reactor) {
    self.connection = connection
    self.dispatcher = dispatcher
    self.services = services
    self.reactor = reactor
    connection.delegate = self
  }

  deinit {
    idleTimer?.cancel()
    connection.delegate = nil
  }

  /// Closes the connection when no stream runs on it any more.
  func drain() {
    closeCode = .goingAway
    closeIfIdle()
  }

  // MARK: Handshake

  func webSocketDidReceive(_ request: HandshakeRequest) {
    reactor.spawn { [self] in
      do throws(Failure) {
        if let issue = request.issue { throw Failure(.badRequest, issue) }
        handshake = try Request(handshake: request)
        let offered = request.list("sec-websocket-protocol")
        guard offered.isEmpty || offered.contains(Self.subprotocol) else {
          throw Failure(.badRequest, "The subprotocol must be \(Self.subprotocol).")
        }
        let slot = try await dispatcher.admit(handshake)
        if !connection.isClosed { self.slot = slot }
        connection.accept(request, subprotocol: offered.isEmpty ? nil : Self.subprotocol)
        isOpen = true
        closeIfIdle()
      } catch {
        services.recordRefusal(error, fields: ["method": "GET", "transport": "websocket"])
        connection.refuse(error.response(to: handshake).asHTTP)
      }
    }
  }

  // MARK: Messages

  func webSocketDidReceive(text: [UInt8]) {
    guard isProcessing || text.count > Self.maximumBytesOnLoop || undecided >= Self.maximumUndecided else {
      return handle(WebSocketMessage.result(text))
    }
    queue.append(text)
    if isProcessing { return }
    isProcessing = true
    connection.isPaused = true
    reactor.spawn { [self] in
      while !queue.isEmpty {
        while undecided >= Self.maximumUndecided { await decided.wait() }
        let text = queue.removeFirst()
        let isLarge = text.count > Self.maximumBytesOnLoop
        handle(isLarge ? await services.parsing.run { WebSocketMessage.result(text) } : WebSocketMessage.result(text))
      }
      isProcessing = false
      connection.isPaused = false
    }
  }

  private func handle(_ parsed: WebSocketMessage.ParsingResult) {
    guard !connection.isClosed else { return }
    switch parsed {
    case .failure(let refusal): WebSocketStream.sendRefusal(refusal.failure, id: refusal.id, on: connection)
    case .success((let id, .start(let body, let query, let key))):
      guard let stream = stream(id) else { return }
      do throws(Failure) {
        dispatcher.start(try request(body, query, key: key), on: stream)
      } catch { stream.refuse(error) }
    case .success((let id, .stop)):
      // A stream that has just ended has had its terminal record, and must not have another one.
      guard let stream = streams[id] else { return }
      stream.isStopRequested = true
      if let running = stream.streamID { services.generations.stop(running) }
    case .success((let id, .resume(let running, let after))):
      if let stream = stream(id) { dispatcher.resume(handshake, running, after: after, on: stream) }
    }
  }

  /// Adds a stream. Returns nil, and refuses the message, if the client uses its id already.
  private func stream(_ id: String) -> WebSocketStream? {
    guard streams[id] == nil else {
      WebSocketStream.sendRefusal(Failure(.conflict, "A stream with this id is running."), id: id, on: connection)
      return nil
    }
    idleTimer?.cancel()
    undecided += 1
    let stream = WebSocketStream(
      id, on: connection, unit: services.descriptors.acquireUnit(), onDecision: { [weak self] in self?.didDecide() },
      onEnd: { [weak self] in self?.didEnd(id, $0) })
    streams[id] = stream
    return stream
  }

  /// Returns the request that starts a stream: the handshake with a body or a query.
  private func request(_ body: JSON?, _ query: JSON.Members?, key: String?) throws(Failure) -> Request {
    var request = handshake
    request.parameters["HTTP_IDEMPOTENCY_KEY"] = key
    if let body {
      request.parameters["REQUEST_METHOD"] = "POST"
      request.parameters["CONTENT_TYPE"] = "application/json"
      request.body = body.encoded
      return request
    }
    let methods = try dispatcher.routes.findStream(at: handshake.path).route.methods
    guard query != nil || methods.contains("GET") else {
      throw Failure(.badRequest, "\"body\" must be a JSON object.")
    }
    request.parameters["REQUEST_METHOD"] = "GET"
    // The dialect and the token are those of the connection.
    let own = ["dialect", "token"].compactMap { name in handshake.query(name).map { (name, $0) } }
    var items = own.map { $0.0 + "=" + $0.1.queryEncoded }
    for member in query?.all ?? [] where member.name != "dialect" && member.name != "token" {
      guard let text = member.value.string ?? member.value.integer.map(String.init) else {
        throw Failure(.badRequest, "\"query\" must contain strings and integers only.")
      }
      items.append(member.name.queryEncoded + "=" + text.queryEncoded)
    }
    request.parameters["QUERY_STRING"] = items.joined(separator: "&")
    return request
  }

  private func didDecide() {
    undecided -= 1
    decided.wake()
  }

  private func didEnd(_ id: String, _ refusal: Failure?) {
    streams[id] = nil
    // The token has expired.
    if refusal?.code == .unauthorized, closeCode == nil { closeCode = .policyViolation }
    closeIfIdle()
  }

  private func closeIfIdle() {
    guard isOpen, streams.isEmpty, !connection.isClosed else { return }
    if let closeCode { return connection.close(closeCode) }
    idleTimer?.cancel()
    idleTimer = reactor.schedule(after: Self.idleTimeout) { [unowned self] in connection.close(.normal) }
  }

  func webSocketDidDrain() {
    for stream in streams.values { stream.delivery?.connectionDidChange() }
  }

  func webSocketDidClose() {
    idleTimer?.cancel()
    slot = nil
    for stream in streams.values { stream.delivery?.connectionDidChange() }
  }
}

extension Request {
  /// Creates the request that a handshake stands for: a GET request to the path behind `/ws`.
  ///
  /// - Throws: ``Failure/Code/notFound`` for another path.
  fileprivate init(handshake: HandshakeRequest) throws(Failure) {
    let isBelow = handshake.target.hasPrefix("/ws/")
    var parameters = Parameters()
    parameters["REQUEST_METHOD"] = "GET"
    parameters["REQUEST_URI"] = isBelow ? String(handshake.target.dropFirst(3)) : handshake.target
    parameters["QUERY_STRING"] = handshake.target.firstIndex(of: "?").map {
      String(handshake.target[$0...].dropFirst())
    }
    for (name, value) in handshake.fields {
      switch name {
      // Set by the web server alone.
      case "sluice-remote-user":
        guard parameters["REMOTE_USER"] == nil else {
          throw Failure(.badRequest, "The field Sluice-Remote-User must occur once.")
        }
        parameters["REMOTE_USER"] = value
      case "x-request-id": parameters["REQUEST_ID"] = value
      case "authorization", "host", "origin", "referer", "cookie", "user-agent",
        _ where name.hasPrefix("x-") || name.hasPrefix("sec-fetch-"):
        parameters["HTTP_" + name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()] = value
      // Those that would change what a stream is, such as Idempotency-Key and Last-Event-ID, have no effect.
      default: break
      }
    }
    // A browser cannot set header fields: its token is in the subprotocols.
    if parameters["HTTP_AUTHORIZATION"] == nil,
      let token = handshake.list("sec-websocket-protocol").first(where: { $0.hasPrefix("bearer.") })
    {
      parameters["HTTP_AUTHORIZATION"] = "Bearer " + token.dropFirst(7)
    }
    self.init(parameters: parameters)
    guard isBelow else { throw Failure(.notFound, "WebSockets are served below /ws/.") }
  }
}

extension String {
  /// The text with all bytes but RFC 3986's unreserved ones percent-encoded.
  fileprivate var queryEncoded: String {
    var encoded: [UInt8] = []
    for byte in utf8 {
      if Identifier.isValid(byte) || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "~") {
        encoded.append(byte)
      } else {
        encoded += "%\(CollectionOfOne(byte).hex.uppercased())".utf8
      }
    }
    return String(decoding: encoded, as: UTF8.self)
  }
}
