import FastCGI
import JSON
import Testing

@testable import Sluice

@Suite("Failures")
struct FailureTests {
  @Test("Failure codes have their documented statuses and outcomes")
  func table() {
    let statuses = Dictionary(uniqueKeysWithValues: Failure.Code.all.map { ($0.name, $0.status) })
    #expect(
      statuses == [
        "bad_request": 400, "unauthorized": 401, "forbidden": 403, "not_found": 404, "streaming_disabled": 404,
        "method_not_allowed": 405, "payload_too_large": 413, "unsupported_media_type": 415, "conflict": 409,
        "too_many_streams": 429,
        "rate_limited": 429, "upstream_error": 502, "upstream_truncated": 502, "upstream_timeout": 504,
        "upstream_rate_limited": 429, "parse_error": 422, "store_failed": 500, "overloaded": 503,
        "shutting_down": 503, "internal": 500,
      ])
    #expect(Outcome(.upstreamTimeout) == .timeout && Outcome(.shuttingDown) == .shutdown)
  }

  @Test("A failure becomes a JSON response with the header fields that belong to it")
  func response() {
    var failure = Failure(.rateLimited, "Say \"please\".", retryAfter: .milliseconds(1500))
    #expect(
      String(decoding: failure.response(to: Request(parameters: [:])).body, as: UTF8.self)
        == "{\"error\":{\"code\":\"rate_limited\",\"message\":\"Say \\\"please\\\".\",\"retriable\":true}}\n")
    #expect(fields(failure)["Retry-After"] == "2")
    failure = Failure(.unauthorized, "no")
    #expect(fields(failure)["WWW-Authenticate"] == "Bearer")
    failure = Failure(.methodNotAllowed, "no")
    failure.allowedMethods = ["GET", "HEAD"]
    #expect(fields(failure)["Allow"] == "GET, HEAD")
  }

  private func fields(_ failure: Failure) -> [String: String] {
    Dictionary(
      uniqueKeysWithValues: failure.response(to: Request(parameters: [:])).head.fields.map {
        ($0.name.description, $0.value.description)
      })
  }
}
