import FastCGI
import JSON

/// The requests of WebSockets: the handshake, and the streams that the client starts or resumes.
extension RequestDispatcher {
  /// Decides about a handshake.
  ///
  /// - Returns: the slot of the connection, to be kept as long as it is open.
  /// - Throws: the reason why it is refused.
  func admit(_ request: Request) async throws(Failure) -> StreamSlot {
    let (route, endpoint, parameters) = try routes.findStream(at: request.path)
    if services.isDraining { throw Failure.draining }
    guard !request.hasForeignOrigin(allowing: parts.cors.origins) else { throw Failure.crossSite }
    let context = try await call(request, RequestBody(request), route, parameters, isWebSocket: true)
    let isEnabled = try endpoint.feature.map { (feature) throws(Failure) in
      try services.isEnabled(feature, context)
    }
    guard isEnabled ?? true, services.streamingBackend(context.configuration).enables(webSocket: true) else {
      throw StreamRun.disabled(endpoint.disabledBehavior)
    }
    try endpoint.checkPath?(parameters)
    if let own = endpoint.dialect { _ = try DialectKind.selected(by: request, own: own) }
    return try await services.webSocketLimiter.acquireSlot(for: context.user, context.configuration)
  }

  /// Starts a stream.
  func start(_ request: Request, on stream: WebSocketStream) {
    let head = Request(parameters: request.parameters, lacksDescriptor: stream.unit == nil)
    start(head, RequestBody(request), .webSocket(stream))
  }

  /// Sends a stream that another request began.
  ///
  /// - Parameters:
  ///   - request: the handshake.
  ///   - id: the stream's id.
  ///   - start: the number of deltas that the client already has.
  func resume(_ request: Request, _ id: String, after start: Int, on stream: WebSocketStream) {
    reactor.spawn {
      do throws(Failure) {
        let (route, _, parameters) = try self.routes.findStream(at: request.path)
        let context = try await self.call(request, RequestBody(request), route, parameters, isWebSocket: true)
        try self.resume(context, route, id, after: start, on: stream)
      } catch {
        self.services.recordRefusal(
          error, fields: ["correlationId": .string(Self.correlationID(request)), "stream": .string(id)])
        stream.refuse(error)
      }
    }
  }

  private func resume(
    _ context: RequestContext, _ route: Route, _ id: String, after start: Int, on stream: WebSocketStream
  ) throws(Failure) {
    guard services.canResume(context.configuration) else { throw StreamReading.disabled }
    guard let transcript = services.transcripts.transcript(of: id, for: context.user) else {
      throw Failure.noSuchStream
    }
    guard start <= transcript.deltas else { throw StreamReading.badPosition(transcript.deltas) }
    let dialect = try DialectKind.selected(by: context.head, own: transcript.dialect ?? .events)
    guard stream.unit != nil else { throw Failure.noDescriptor }
    guard let reading = try StreamReading(transcript, after: start, on: reactor.loop) else {
      throw Failure.noSuchStream
    }
    let delivery = StreamClient.webSocket(stream).delivery(
      of: id, .eventStream(dialect.type.init(transcript.metadata), ids: .none), to: context.head,
      heartbeat: context.configuration.heartbeat, on: reactor, pool: services.pool)
    reading.start(context, route: route.path.text, services, to: delivery)
    if stream.isStopRequested { services.generations.stop(id) }
  }
}
