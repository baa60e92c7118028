import EventLoop
import FastCGI
import JSON

/// The reading of a stream that another request began. Its reader is attached, and must be started or cancelled.
struct StreamReading {
  let transcript: Transcript
  /// The number of deltas that the client already has.
  let start: Int
  private let handle: TranscriptReaderHandle

  /// Attaches a reader.
  ///
  /// - Returns: nil if the stream has just been given up.
  /// - Throws: ``Failure/Code/tooManyStreams``.
  init?(_ transcript: Transcript, after start: Int, on loop: EventLoop) throws(Failure) {
    self.transcript = transcript
    self.start = start
    handle = TranscriptReaderHandle(on: loop)
    guard try transcript.attach(handle) else { return nil }
  }

  func cancel() { transcript.detach(handle) }

  /// Sends the stream in a task of its own.
  ///
  /// - Parameters:
  ///   - context: the request that reads the stream.
  ///   - delivery: the delivery to its client.
  func start(_ context: RequestContext, route: String, _ services: Services, to delivery: any Delivery) {
    services.metrics.countResumed()
    services.log.info(
      "stream resumed",
      [
        "correlationId": .string(context.correlationID), "route": .string(route), "user": .string(context.user.name),
        "stream": .string(transcript.id), "after": .integer(start), "readers": .integer(transcript.readers.count),
      ])
    services.transcripts.read(transcript, handle, after: start, to: delivery, on: context.reactor) {
      services.metrics.countSentBytes($0)
    }
  }

  /// Returns the number of deltas that a client already has, as its request says; nil if it has the complete stream.
  static func start(of request: Request, in transcript: Transcript) throws(Failure) -> Int? {
    let text: Substring
    if let id = request.lastEventID {
      guard id.stream == transcript.id else {
        throw Failure(.badRequest, "\"Last-Event-ID\" must be the id of a record of this stream.")
      }
      if id.record == "end" { return nil }
      text = id.record
    } else if let after = request.query("after") {
      text = after[...]
    } else {
      return 0
    }
    let deltas = transcript.deltas
    guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let start = Int(text), start <= deltas else {
      throw badPosition(deltas)
    }
    return start
  }

  static func badPosition(_ deltas: Int) -> Failure {
    Failure(.badRequest, "The position must be the number of deltas received, from 0 to \(deltas).")
  }

  static let disabled = Failure(.streamingDisabled, "Streams cannot be read again, because SLUICE_RESUME is not set.")
}

extension Request {
  /// The event id with which an EventSource reconnects: the id of a stream, and the rest; nil if there is none.
  var lastEventID: (stream: Substring, record: Substring)? {
    guard let id = header("Last-Event-ID"), !id.isEmpty else { return nil }
    let stream = id.prefix { $0 != "." }
    return (stream, id[stream.endIndex...].dropFirst())
  }
}

extension RequestDispatcher {
  /// Responds with the stream that a request selects, from the first delta that its client does not have.
  func read(
    _ context: RequestContext, route: String, _ select: StreamSelector, _ writer: consuming ResponseWriter
  ) async {
    var writer = writer
    let reading: (StreamReading, DialectKind)?
    do { reading = try await self.reading(context, select) } catch {
      let failure = Failure(cause: error)
      if failure.code == .notFound, isElsewhere(context), services.passOn(context.head, &writer) { return }
      services.recordRefusal(
        failure, fields: ["correlationId": .string(context.correlationID), "user": .string(context.user.name)])
      await writer.respond(failure.response(to: context.head))
      return
    }
    guard let (reading, dialect) = reading else {
      if isElsewhere(context), services.passOn(context.head, &writer) { return }
      await writer.respond(Response(ResponseHead(status: 204)))
      return
    }
    if context.method == "HEAD" {
      reading.cancel()
      await writer.respond(Response(dialect.head(reading.transcript.metadata)))
      return
    }
    let format = DeliveryFormat.eventStream(dialect.type.init(reading.transcript.metadata), ids: .all(of: dialect))
    let delivery = StreamClient.http(writer).delivery(
      of: reading.transcript.id, format, to: context.head, heartbeat: context.configuration.heartbeat,
      on: context.reactor, pool: services.pool)
    reading.start(context, route: route, services, to: delivery)
  }

  /// Whether a request that selects nothing here can be about a stream of another process.
  private func isElsewhere(_ context: RequestContext) -> Bool {
    let id = context.head.lastEventID.map { String($0.stream) } ?? context.pathParameters["id"] ?? ""
    return services.transcripts.transcript(of: id, for: context.user) == nil
  }

  /// Returns what a request reads, and in which dialect; nil if there is nothing to read.
  private func reading(
    _ context: RequestContext, _ select: StreamSelector
  ) async throws -> (StreamReading, DialectKind)? {
    guard services.canResume(context.configuration) else { throw StreamReading.disabled }
    guard services.streamingBackend(context.configuration).enables(webSocket: false) else {
      throw Failure(.streamingDisabled, "Streams are only served over WebSocket.")
    }
    guard let transcript = try await select(context),
      let start = try StreamReading.start(of: context.head, in: transcript)
    else { return nil }
    let dialect = try DialectKind.selected(by: context.head, own: transcript.dialect ?? .events)
    guard let reading = try StreamReading(transcript, after: start, on: context.reactor.loop) else {
      throw Failure.noSuchStream
    }
    return (reading, dialect)
  }
}
