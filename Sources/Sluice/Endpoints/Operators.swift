import FastCGI
import JSON

extension Services {
  /// DELETE /api/streams/{id}: stops a running stream of the same user, which ends with its `cancelled` record.
  nonisolated(nonsending) func stopStream(_ context: RequestContext) async throws -> Response {
    guard let id = context.pathParameters["id"], streams.stop(id, for: context.user) else {
      throw Failure(.notFound, "No such stream is running.")
    }
    return Response(ResponseHead(status: 204))
  }

  /// GET /api/features: what is on at this location, so that a client can choose before it asks.
  nonisolated(nonsending) func features(_ context: RequestContext) async throws -> Response {
    var features: JSON.Members = [:]
    for feature in Feature.allCases { features[feature.rawValue] = .bool(context.configuration.has(feature)) }
    return .json(["features": .object(features)])
  }

  /// GET /healthz: whether new streams are welcome.
  nonisolated(nonsending) func health(_ context: RequestContext) async throws -> Response {
    if isDraining { throw Failure.draining }
    return .json(["status": "ok", "streams": .integer(streams.count)])
  }

  /// GET /metrics, for Prometheus. The web server lets only loopback read it.
  nonisolated(nonsending) func exposeMetrics(_ context: RequestContext) async throws -> Response {
    var head = ResponseHead()
    head.set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
    head.set("Cache-Control", "no-store")
    return Response(head, body: Array(metrics.text(openStreams: streams.count).utf8))
  }

  /// GET /openapi.yaml: the contract.
  nonisolated(nonsending) func contract(_ context: RequestContext) async throws -> Response {
    var head = ResponseHead()
    head.set("Content-Type", "application/yaml")
    return Response(head, body: PackageResources.openapi_yaml)
  }
}
