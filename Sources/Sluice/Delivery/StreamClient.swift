import EventLoop
import FastCGI

/// The client of a stream: the writer of one HTTP response, or a stream on a WebSocket.
enum StreamClient: ~Copyable {
  case http(ResponseWriter)
  case webSocket(WebSocketStream)

  /// The stream on a WebSocket; nil for HTTP.
  var webSocket: WebSocketStream? {
    switch self {
    case .http: nil
    case .webSocket(let stream): stream
    }
  }

  /// Refuses the request.
  consuming func refuse(_ failure: Failure, _ request: Request) async {
    switch consume self {
    case .http(let writer): await writer.respond(failure.response(to: request))
    case .webSocket(let stream): stream.refuse(failure)
    }
  }

  /// Sends a complete response, which only HTTP has.
  consuming func respond(_ response: Response) async {
    switch consume self {
    case .http(let writer): await writer.respond(response)
    case .webSocket(let stream):
      stream.refuse(Failure(.badRequest, "Only streams are served over WebSocket."))
    }
  }

  /// Passes the request to another process, which only HTTP can.
  ///
  /// - Parameter pass: passes it, and returns whether that was possible.
  /// - Returns: the client if it must be answered here.
  consuming func passOn(_ pass: (inout ResponseWriter) -> Bool) -> StreamClient? {
    switch consume self {
    case .http(var writer): return pass(&writer) ? nil : .http(writer)
    case .webSocket(let stream): return .webSocket(stream)
    }
  }

  /// Creates the delivery of a stream.
  ///
  /// - Parameters:
  ///   - id: the stream's id.
  ///   - format: an event stream's, over WebSocket.
  ///   - request: the request without its body; error responses depend on it.
  ///   - heartbeat: the heartbeat interval; 0 disables heartbeats.
  ///   - pool: the threads that encode large terminal records and responses.
  consuming func delivery(
    of id: String, _ format: DeliveryFormat, to request: Request, heartbeat: Duration, on reactor: Reactor,
    pool: BlockingPool
  ) -> any Delivery {
    switch consume self {
    case .http(let writer):
      switch format {
      case .eventStream(let dialect, let ids):
        return EventStreamDelivery(id, dialect, ids: ids, heartbeat: heartbeat, request, reactor, pool, writer)
      case .json(let body): return JSONDelivery(body, request, reactor, pool, writer)
      }
    case .webSocket(let stream):
      guard case .eventStream(let dialect, _) = format else { preconditionFailure("a WebSocket carries streams only") }
      return WebSocketDelivery(id, dialect, heartbeat: heartbeat, to: stream, reactor, pool)
    }
  }
}
