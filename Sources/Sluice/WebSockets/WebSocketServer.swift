import EventLoop
import FastCGI
import WebSocket

/// The WebSockets of one loop. Belongs to it.
final class WebSocketServer {
  private let services: Services
  private let dispatcher: RequestDispatcher
  private let reactor: Reactor
  private var sessions: [ObjectIdentifier: WebSocketSession] = [:]

  init(_ services: Services, _ dispatcher: RequestDispatcher, on reactor: Reactor) {
    self.services = services
    self.dispatcher = dispatcher
    self.reactor = reactor
  }

  /// Serves a connection that a ``Listener`` accepted, until it closes.
  func serve(_ descriptor: consuming Descriptor) {
    // Each stream acquires the unit of its connection to the model.
    services.descriptors.release(ConnectionServer.descriptorsPerConnection - 1)
    services.webSockets.begin()
    let configuration = services.configuration
    let connection = WebSocketConnection(
      descriptor,
      WebSocketConnection.Limits(
        maximumMessageBytes: configuration.maximumBodyBytes, pingInterval: configuration.heartbeat,
        writeTimeout: configuration.writeTimeout), on: reactor)
    let session = WebSocketSession(connection, dispatcher, services, on: reactor)
    let key = ObjectIdentifier(session)
    sessions[key] = session
    connection.onClosed = { [unowned self] in
      services.descriptors.release(1)
      services.webSockets.end()
      // In a later turn, because the connection is still in use in this one.
      _ = reactor.schedule(after: .zero) { [weak self] in self?.sessions[key] = nil }
    }
    connection.open()
  }

  /// Closes each connection when its streams have ended.
  func drain() {
    for session in sessions.values { session.drain() }
  }
}
