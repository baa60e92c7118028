import JSON
import SluiceTesting
import Testing

@Suite("Model list")
struct ModelListTests {
  /// Returns the responses to two requests. Real time does not count, only `pause`.
  private func list(
    _ url: String, _ environment: [String: String] = [:], pause: Duration = .zero
  ) async throws -> [TestResponse] {
    let clock = SlowClock()
    let fixture = try InMemory(clock: clock.loopClock, ["SLUICE_UPSTREAM_URL": url].merging(environment) { $1 })
    let first = try await fixture.client.send("GET", "/v1/models")
    clock.advance(by: pause)
    return [first, try await fixture.client.send("GET", "/v1/models")]
  }

  @Test("The upstream's models are passed on unchanged, and not requested again within a minute")
  func passedOn() async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.respond(
        "200 OK", #"{"object":"list","data":[{"id":"a","owned_by":"x","n":1.50},{"noid":1},{"id":"b"}]}"#)
    }
    for response in try await list(upstream.baseURL) {
      #expect(response.body == #"{"object":"list","data":[{"id":"a","owned_by":"x","n":1.50},{"id":"b"}]}"# + "\n")
    }
    #expect(upstream.requests.count == 1)
    #expect(upstream.requests.first?.head.hasPrefix("GET /v1/models HTTP/1.1\r\n") == true, "\(upstream.requests)")
  }

  @Test("The upstream's models are requested again after a minute")
  func expired() async throws {
    let upstream = try ScriptedUpstream { $0.respond("200 OK", #"{"data":[{"id":"a"}]}"#) }
    for response in try await list(upstream.baseURL, pause: .seconds(61)) { #expect(response.status == 200) }
    #expect(upstream.requests.count == 2)
  }

  @Test("The list contains only the configured model if there is one")
  func configured() async throws {
    let upstream = try ScriptedUpstream { $0.respond("500 No", "") }
    let response = try await list(upstream.baseURL, ["SLUICE_MODEL": "m"])[0]
    #expect(response.json?["data"].map { "\($0)" }?.contains("m") == true && upstream.requests.isEmpty, "\(response)")
  }

  @Test("The list is empty if the upstream has none", arguments: ["404 Not Found", "405 Method Not Allowed", "200 OK"])
  func none(status: String) async throws {
    let upstream = try ScriptedUpstream { $0.respond(status, "<html>") }
    for response in try await list(upstream.baseURL) { #expect(response.json?["data"] == .array([]), "\(response)") }
    #expect(upstream.requests.count == 1)
  }

  @Test("An upstream failure is reported as it is for a stream, and the list is requested again")
  func failed() async throws {
    let upstream = try ScriptedUpstream { $0.respond("500 No", "{}") }
    for response in try await list(upstream.baseURL) {
      #expect(response.status == 502 && response.json?["error"]?["code"] == "upstream_error", "\(response)")
    }
    #expect(upstream.requests.count == 2)
    let unreachable = try await list("http://127.0.0.1:1/v1")[0]
    #expect(unreachable.status == 502, "\(unreachable)")
  }
}

@Suite("Upstream event length")
struct LongEventTests {
  /// Returns the response to a chat message for which the upstream sends `count` times `escape` in one event.
  private func chat(_ count: Int, escape: String, limit: String) async throws -> TestResponse {
    let upstream = try ScriptedUpstream { exchange in
      exchange.sendHead()
      exchange.send("data: {\"choices\":[{\"delta\":{\"content\":\"")
      exchange.send(String(repeating: escape, count: count))
      exchange.send("\"}}]}\n\ndata: [DONE]\n\n")
    }
    let application = try InMemory(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MAX_ANSWER": limit])
    return try await application.client.send("POST", "/api/chat", body: ["message": "a", "stream": false])
  }

  @Test(
    "One event can contain text up to SLUICE_MAX_ANSWER, however it is escaped, but no more",
    arguments: [
      ("x", 1, 2 << 20), ("\\u0001", 1, 256 << 10), ("\\n", 1, 64 << 10), ("\\u00fc", 2, 64 << 10),
      ("\\ud83d\\ude00", 4, 64 << 10),
    ])
  func length(escape: String, bytes: Int, limit: Int) async throws {
    let complete = try await chat(limit / bytes, escape: escape, limit: "\(limit)")
    #expect(complete.json?["message"]?.string?.utf8.count == limit, "\(complete.status) \(complete.body.prefix(200))")
    let long = try await chat(limit / bytes + 1, escape: escape, limit: "\(limit)")
    #expect(long.status == 502 && long.json?["error"]?["code"] == "upstream_error", "\(long.body.prefix(200))")
  }
}
