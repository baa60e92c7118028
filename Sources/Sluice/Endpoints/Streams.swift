import FastCGI

extension Services {
  /// DELETE /api/streams/{id}: stops a running stream of the same user, which terminates with a `cancelled` record.
  nonisolated(nonsending) func stopStream(_ context: RequestContext) async throws -> Response {
    guard let id = context.pathParameters["id"], Identifier.isValid(id), await stopStream(id, of: context.user) else {
      throw Failure(.notFound, "No running stream has this id.")
    }
    return Response(ResponseHead(status: 204))
  }

  /// GET /api/streams/{id}: a running stream of the same user, or one that has just ended.
  nonisolated(nonsending) func selectStream(_ context: RequestContext) async throws -> Transcript? {
    let transcript = context.pathParameters["id"].flatMap { transcripts.transcript(of: $0, for: context.user) }
    guard let transcript else { throw Failure.noSuchStream }
    return transcript
  }

  /// GET /api/sessions/{id}/stream: the running stream of a session. What has ended is in the session itself.
  nonisolated(nonsending) func selectRunningStream(_ context: RequestContext) async throws -> Transcript? {
    let id = context.pathParameters["id"] ?? ""
    // An EventSource that reconnects continues its own stream, also when that has just ended.
    if let lastEventID = context.head.lastEventID {
      let transcript = transcripts.transcript(of: String(lastEventID.stream), for: context.user)
      return transcript?.session == id ? transcript : nil
    }
    if let transcript = transcripts.running(inSession: id, of: context.user) { return transcript }
    guard Identifier.isValid(id), try await readingStore({ try await turns.hasSession(id, of: context.user) }) else {
      throw Failure.noSuchSession
    }
    return nil
  }
}
