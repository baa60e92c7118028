import FastCGI

extension Services {
  /// DELETE /api/streams/{id}: stops a running stream of the same user, which terminates with a `cancelled` record.
  nonisolated(nonsending) func stopStream(_ context: RequestContext) async throws -> Response {
    guard let id = context.pathParameters["id"], generations.stop(id, for: context.user) else {
      throw Failure(.notFound, "No running stream has this id.")
    }
    return Response(ResponseHead(status: 204))
  }
}
