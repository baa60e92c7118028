import EventLoop
import FastCGI
import Upstream

/// One run of a streaming endpoint, from the valid request to the one line in the log that says how it ended.
final class StreamRun {
  let services: Services
  /// The task that ``run(_:)`` runs in, for cancelling it.
  var task: Task<Void, Never>?

  private let call: Call
  private let route: String
  private let endpoint: StreamingEndpoint
  private let reactor: Reactor

  init(_ call: Call, route: String, _ endpoint: StreamingEndpoint, _ services: Services, _ reactor: Reactor) {
    self.call = call
    self.route = route
    self.endpoint = endpoint
    self.services = services
    self.reactor = reactor
  }

  func run(_ writer: consuming ResponseWriter) async {
    let question: StreamingEndpoint.Question
    do {
      if services.isDraining { throw Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5)) }
      question = try await endpoint.ask(call)
    } catch {
      let failure = Failure(cause: error)
      log("refused", ["status": .integer(failure.code.status), "error": .string(failure.code.rawValue)])
      await writer.respond(failure.response)
      return
    }
    let id = Identifier.make()
    let whole = question.wantsWhole ? endpoint.whole : nil
    let dialect: any Dialect = endpoint.dialect.init(streamID: id)
    let stream = ResponseStream(
      id: id, message: question.message, dialect: dialect, whole: whole, keepsText: question.sessionID != nil,
      limits: call.configuration.streamLimits, reactor: reactor, writer: writer)
    register(stream)
    var fields: JSON.Members = ["stream": .string(id)]
    fields["sessionId"] = question.sessionID.map(JSON.string)
    log("stream started", fields)

    var ending: Ending
    do {
      ending = .finished(try await endpoint.run(call, question, stream))
    } catch {
      ending = .failed(Failure(cause: error))
    }
    ending = await stream.close(ending)
    services.streams.remove(id)
    logEnd(of: stream, ending, fields)
  }

  private func register(_ stream: ResponseStream) {
    stream.start { [unowned self] in task?.cancel() }
    // Safe: the closure given to `execute` runs on the loop to which the stream belongs.
    let bound = unsafe LoopBound(stream)
    let loop = reactor.loop
    services.streams.add(stream.id, of: call.user) { ending in
      loop.execute { _ in bound.value.end(ending) }
    }
  }

  private func logEnd(of stream: ResponseStream, _ ending: Ending, _ start: JSON.Members) {
    var fields = start
    fields["outcome"] = .string(ending.outcome.rawValue)
    if case .finished(let finish) = ending { fields["messageId"] = finish.messageID.map(JSON.string) }
    if case .failed(let failure) = ending {
      fields["error"] = .string(failure.code.rawValue)
      fields["detail"] = .string(failure.detail ?? failure.message)
    }
    fields["firstTokenMs"] = stream.firstDeltaAt.map { .integer(Int(($0 - stream.startedAt).wholeMilliseconds)) }
    fields["totalMs"] = .integer(Int((reactor.now - stream.startedAt).wholeMilliseconds))
    fields["deltas"] = .integer(stream.deltas)
    fields["bytes"] = .integer(stream.sentBytes)
    log("stream ended", fields)
  }

  private func log(_ message: String, _ fields: JSON.Members) {
    var all: JSON.Members = [
      "correlationId": .string(call.correlationID), "route": .string(route), "user": .string(call.user.name),
    ]
    for field in fields.all { all[field.name] = field.value }
    services.log.info(message, all)
  }
}
