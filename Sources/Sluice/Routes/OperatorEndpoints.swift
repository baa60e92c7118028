import FastCGI

extension Services {
  /// DELETE /api/streams/{id}: stops a running stream of the same user, which ends with its `cancelled` record.
  nonisolated(nonsending) func stopStream(_ call: Call) async throws -> Response {
    guard let id = call.pathParameters["id"], streams.stop(id, for: call.user) else {
      throw Failure(.notFound, "No such stream is running.")
    }
    return Response(ResponseHead(status: 204))
  }

  /// GET /healthz: whether new streams are welcome.
  nonisolated(nonsending) func health(_ call: Call) async throws -> Response {
    if isDraining { throw Failure(.shuttingDown, "The server is shutting down.", retryAfter: .seconds(5)) }
    return .json(["status": "ok", "streams": .integer(streams.count)])
  }
}
