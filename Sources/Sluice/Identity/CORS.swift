import FastCGI

/// Cross-origin access for pages (WHATWG Fetch, 3.2): allowed from the configured origins, denied to all others.
struct CORS: Sendable {
  let origins: [String]

  /// Returns the header fields that let a page of an allowed origin read the response. For other requests, returns
  /// `Vary` alone, or nothing if no origins are configured.
  func fields(for request: Request, isCredentialed: Bool) -> [ResponseHead.Field] {
    guard !origins.isEmpty else { return [] }
    // The field is sent for every origin, allowed or not: a cache must not reuse the response for another origin.
    var fields: [ResponseHead.Field] = [("Vary", "Origin")]
    guard let origin = request.header("Origin"), origins.contains(origin), let value = FieldValue(origin) else {
      return fields
    }
    fields.append(("Access-Control-Allow-Origin", value))
    fields.append(("Access-Control-Expose-Headers", "Sluice-Stream-Id, Retry-After, Link, x-request-id"))
    // If the web server authenticates, the browser must be allowed to send credentials.
    if isCredentialed { fields.append(("Access-Control-Allow-Credentials", "true")) }
    return fields
  }

  /// Returns the additional header fields of a response to a preflight request.
  func preflightFields(for request: Request, methods: FieldValue) -> [ResponseHead.Field] {
    guard let origin = request.header("Origin"), origins.contains(origin) else { return [] }
    return [
      ("Access-Control-Allow-Methods", methods), ("Access-Control-Allow-Headers", allowedHeaders(for: request)),
      ("Access-Control-Max-Age", "600"),
    ]
  }

  private static let headers =
    "Authorization, api-key, x-api-key, Content-Type, Idempotency-Key, Last-Event-ID, Cache-Control, x-request-id"

  /// Returns the header fields that a page can send, with those of OpenAI's SDK that the preflight request names
  /// (`X-Stainless-…`), which have no effect.
  private func allowedHeaders(for request: Request) -> FieldValue {
    let asked = (request.header("Access-Control-Request-Headers") ?? "").split(separator: ",").map(\.trimmed)
    let ignored = asked.filter { name in
      name.lowercased().hasPrefix("x-stainless-") && name.utf8.allSatisfy(Identifier.isValid)
    }
    return FieldValue(([Self.headers[...]] + ignored.prefix(30)).joined(separator: ", ")) ?? FieldValue(Self.headers)
      ?? "*"
  }
}
