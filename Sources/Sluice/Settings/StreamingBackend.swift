/// The transports of streams.
enum StreamingBackend: String, CaseIterable, Sendable {
  /// Server-Sent Events over HTTP.
  case sse
  case websocket
  case both

  /// Returns whether streams are served over WebSocket, or over HTTP.
  func enables(webSocket: Bool) -> Bool { self != (webSocket ? .sse : .websocket) }
}
