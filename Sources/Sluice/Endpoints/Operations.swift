import FastCGI
import JSON

extension Services {
  /// GET /api/features: lists the features and whether each is enabled at this location, so that a client can choose an
  /// endpoint.
  nonisolated(nonsending) func listFeatures(_ context: RequestContext) async throws -> Response {
    var features: JSON.Members = [:]
    for feature in self.features { features[feature.name] = .bool(try isEnabled(feature, context)) }
    features["STREAMING_BACKEND"] = .string(streamingBackend(context.configuration).rawValue)
    return .json(["features": .object(features)])
  }

  /// GET /healthz: reports whether new streams are accepted.
  nonisolated(nonsending) func readHealth(_ context: RequestContext) async throws -> Response {
    if isDraining { throw Failure.draining }
    return .json(["status": "ok", "streams": .integer(generations.count)])
  }

  /// GET /metrics: returns the metrics for Prometheus. The web server restricts access to loopback.
  nonisolated(nonsending) func readMetrics(_ context: RequestContext) async throws -> Response {
    var head = ResponseHead()
    head.set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
    head.set("Cache-Control", "no-store")
    let text = metrics.text(
      openStreams: generations.count, webSockets: webSockets.count, unsaved: unsaved.count,
      redactions: redactionCounts, commands: commands, transcripts)
    return Response(head, body: Array(text.utf8))
  }

  /// GET /openapi.yaml: returns the API contract.
  nonisolated(nonsending) func readContract(_ context: RequestContext) async throws -> Response {
    var head = ResponseHead()
    head.set("Content-Type", "application/yaml")
    return Response(head, body: PackageResources.openapi_yaml)
  }
}
