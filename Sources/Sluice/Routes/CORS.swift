import FastCGI

/// What other origins' pages may do here (WHATWG Fetch, 3.2): those that are configured, and no other.
struct CORS: Sendable {
  let origins: [String]

  /// The header fields that let the page of a request read its answer. None when it may not, or needs no leave.
  func fields(for request: Request, isCredentialed: Bool) -> [ResponseHead.Field] {
    guard !origins.isEmpty else { return [] }
    // Whether or not this origin may: a cache must not give one's answer to the other.
    var fields: [ResponseHead.Field] = [("Vary", "Origin")]
    guard let origin = request.header("Origin"), origins.contains(origin), let value = FieldValue(origin) else {
      return fields
    }
    fields.append(("Access-Control-Allow-Origin", value))
    fields.append(("Access-Control-Expose-Headers", "Sluice-Stream-Id, Retry-After, Link"))
    // Where the web server authenticates, the browser has to send what it asks for.
    if isCredentialed { fields.append(("Access-Control-Allow-Credentials", "true")) }
    return fields
  }

  /// Those of the answer to a preflight.
  func preflightFields(for request: Request, methods: FieldValue) -> [ResponseHead.Field] {
    guard let origin = request.header("Origin"), origins.contains(origin) else { return [] }
    return [
      ("Access-Control-Allow-Methods", methods),
      ("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Cache-Control"),
      ("Access-Control-Max-Age", "600"),
    ]
  }
}
