import Foundation
import JSON
import Sluice
import SluiceTesting
import Testing

@Suite("Endpoints of OpenAI's API")
struct CompletionEndpointTests {
  private static let messages: JSON = [["role": "user", "content": "a"]]

  @Test(
    "Values that OpenAI takes are taken",
    arguments: [
      ["n": .number(1)], ["n": .integer(1)], ["n": .null], ["max_tokens": .integer(-1)],
      ["max_completion_tokens": .integer(-1)], ["max_tokens": .null], ["stream_options": .null],
      ["stream_options": ["include_usage": .null]], ["tools": []], ["tools": .null], ["logprobs": .bool(false)],
      ["stream": .null],
    ] as [JSON.Members])
  func tolerated(members: JSON.Members) async throws {
    var body: JSON.Members = ["messages": Self.messages]
    body.merge(members)
    for path in ["/v1/chat/completions", "/v1/chat/completions/"] {
      let response = try await InMemory().client.send("POST", path, body: .object(body))
      #expect(response.status == 200, "\(members) \(response)")
    }
  }

  @Test("A message with images, a name, tool calls or a tool's result goes to the model server as it came")
  func messages() async throws {
    let upstream = try ScriptedUpstream { $0.stream(["a"]) }
    let client = try InMemory(["SLUICE_UPSTREAM_URL": upstream.baseURL]).client
    let url: JSON = [
      "url": .string("data:image/png;base64," + String(repeating: "A", count: 100_000)), "detail": "low",
    ]
    let messages: JSON = [
      ["role": "user", "name": "ada", "content": "Hi"],
      ["role": "user", "content": [["type": "text", "text": "See"], ["type": "image_url", "image_url": url]]],
      [
        "role": "assistant", "content": .null,
        "tool_calls": [["id": "c1", "type": "function", "function": ["name": "f", "arguments": "{}"]]],
      ],
      ["role": "tool", "tool_call_id": "c1", "content": "result"],
      ["role": "assistant", "content": [["type": "refusal", "refusal": "No."]]],
      ["role": "system", "content": [["type": "text", "text": "a", "cache_control": ["type": "ephemeral"]]]],
      ["role": "function", "name": "f", "content": "a"],
      [
        "role": "user",
        "content": [
          ["type": "input_audio", "input_audio": ["data": "AA==", "format": "wav"]],
          ["type": "file", "file": ["file_id": "f1"]], ["type": "video_url", "video_url": ["url": "u"]],
        ],
      ],
    ]
    let response = try await client.send("POST", "/v1/chat/completions", body: ["messages": messages])
    #expect(response.status == 200, "\(response)")
    let asked = try JSON(parsing: Array((upstream.requests.last?.body ?? "").utf8))
    #expect(asked["messages"] == messages, "\(asked)")
    // Text alone is sent as a string, which every server takes.
    let parts: JSON = [["role": "user", "content": [["type": "text", "text": "a"], ["type": "text", "text": "b"]]]]
    _ = try await client.send("POST", "/v1/chat/completions", body: ["messages": parts])
    #expect(upstream.requests.last?.body.contains(#""content":"ab""#) == true)
    for message in [
      ["role": "tool", "content": "a"], ["role": "user", "content": [["type": "image_url"]]],
      ["role": "user", "content": [["video": [:]]]], ["role": "user"],
      ["role": "assistant", "tool_calls": [:]], ["role": "someone", "content": "a"],
      ["role": "user", "content": [["type": "text"]]],
    ] as [JSON] {
      let response = try await client.send("POST", "/v1/chat/completions", body: ["messages": [message]])
      #expect(response.status == 400 && response.body.contains("messages[0]"), "\(message) \(response)")
    }
  }

  @Test("A limit of -1 sends none, unless one is configured")
  func unlimited() async throws {
    let upstream = try ScriptedUpstream { $0.stream(["a"]) }
    for (limit, sent) in [("", nil), ("9", 9)] as [(String, Int?)] {
      let fixture = try InMemory(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MAX_TOKENS": limit])
      let response = try await fixture.client.send(
        "POST", "/v1/chat/completions", body: ["messages": Self.messages, "max_tokens": .integer(-1)])
      #expect(response.status == 200, "\(response)")
      let asked = try JSON(parsing: Array((upstream.requests.last?.body ?? "").utf8))
      #expect(asked["max_tokens"]?.integer == sent, "\(asked)")
    }
  }

  @Test(
    "What the model server refuses, it refuses in its own words under /v1, and only there",
    arguments: [
      (
        "400 Bad Request", #"{"error":{"message":"No x.","type":"invalid_request_error","param":"x","code":"bad_x"}}"#,
        true
      ),
      ("404 Not Found", #"{"error":{"message":"No x.","type":"not_found_error","param":null,"code":404}}"#, true),
      ("413 Too Large", #"{"error":"No x."}"#, true), ("422 Unprocessable", #"{"detail":"No x."}"#, true),
      ("400 Bad Request", #"{"error":{"message":"No x for sk-secret."}}"#, false),
      ("400 Bad Request", #"{"error":{"message":"127.0.0.1 has no x."}}"#, false),
      ("400 Bad Request", "<html>No x.", false), ("401 Unauthorized", #"{"error":{"message":"No x."}}"#, false),
      ("500 Error", #"{"error":{"message":"No x."}}"#, false),
    ])
  func refusals(status: String, body: String, isPassedOn: Bool) async throws {
    let upstream = try ScriptedUpstream { $0.respond(status, body) }
    let directory = TemporaryDirectory()
    let client = try InMemory([
      "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_UPSTREAM_KEY_FILE": directory.file("key", "sk-secret"),
    ]).client
    let code = Int(status.prefix(3)) ?? 0
    let isOwnStatus = [400, 404, 413, 422].contains(code)
    for stream in [true, false] {
      let response = try await client.send(
        "POST", "/v1/chat/completions", body: ["messages": Self.messages, "stream": .bool(stream)])
      #expect(response.status == (isOwnStatus ? code : 502), "\(response)")
      #expect(response.body.contains("No x") == isPassedOn && !response.body.contains("sk-secret"), "\(response)")
      let error = response.json?["error"]
      #expect(error?["retriable"] == .bool(code == 500), "\(response)")
      if body.contains("bad_x") {
        #expect(error?["type"] == "invalid_request_error" && error?["param"] == "x" && error?["code"] == "bad_x")
      } else if !isPassedOn {
        #expect(error?["code"] == "upstream_error", "\(response)")
      }
    }
    let chat = try await client.send("POST", "/api/chat?dialect=openai", body: ["message": "a"])
    #expect(chat.status == 502 && !chat.body.contains("No x"), "\(chat)")
  }

  @Test("A second Sluice in the chain keeps whether a request can be sent again", arguments: [true, false])
  func retriable(isRetriable: Bool) async throws {
    let error = #"{"error":{"message":"m","type":"server_error","code":"internal","retriable":\#(isRetriable)}}"#
    for isInStream in [true, false] {
      let upstream = try ScriptedUpstream { exchange in
        guard isInStream else { return exchange.respond("500 Error", error) }
        exchange.respond("200 OK", "data: \(error)\n\n", type: "text/event-stream")
      }
      let client = try InMemory(["SLUICE_UPSTREAM_URL": upstream.baseURL]).client
      let response = try await client.send("POST", "/v1/chat/completions", body: ["messages": Self.messages])
      #expect(response.json?["error"]?["retriable"] == .bool(isRetriable), "\(response)")
    }
  }

  @Test("Embeddings are passed on and count as a message; without a model server there are none")
  func embeddings() async throws {
    let upstream = try ScriptedUpstream { exchange in
      exchange.request.body.contains("bad")
        ? exchange.respond("400 Bad Request", #"{"error":{"message":"Bad input.","code":"bad_input"}}"#)
        : exchange.respond("200 OK", #"{"object":"list","data":[{"embedding":[0.10,1e-3]}]}"#)
    }
    let fixture = try InMemory(["SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_MESSAGES_PER_HOUR": "2"])
    func send(_ body: JSON) async throws -> TestResponse {
      try await fixture.client.send("POST", "/v1/embeddings", body: body)
    }
    let response = try await send(["model": "e", "input": ["a", "b"], "dimensions": .integer(3)])
    #expect(response.status == 200 && response.body == #"{"object":"list","data":[{"embedding":[0.10,1e-3]}]}"#)
    let request = try #require(upstream.requests.last)
    #expect(request.head.hasPrefix("POST /v1/embeddings HTTP/1.1") && request.body.contains(#""dimensions":3"#))
    // Refused before the model is asked, so it does not count.
    #expect(try await send(["model": "e"]).status == 400 && upstream.requests.count == 1)
    let refused = try await send(["input": "bad"])
    #expect(refused.status == 400 && refused.json?["error"]?["code"] == "bad_input", "\(refused)")
    #expect(try await send(["input": "a"]).status == 429)
    let echo = try await InMemory().client.send("POST", "/v1/embeddings", body: ["input": "a"])
    #expect(echo.status == 404 && echo.json?["error"]?["code"] == "not_found", "\(echo)")
    let gone = try InMemory(["SLUICE_UPSTREAM_URL": "http://127.0.0.1:1/v1"]).client
    #expect(try await gone.send("POST", "/v1/embeddings", body: ["input": "a"]).status == 502)
  }

  @Test("One model can be read, also if its id has an owner, and one that does not exist is not found")
  func models() async throws {
    for id in ["m", "owner/m"] {
      let client = try InMemory(["SLUICE_MODEL": id]).client
      for path in ["/v1/models/\(id)", "/v1/models/" + id.replacingOccurrences(of: "/", with: "%2F")] {
        let response = try await client.send("GET", path)
        #expect(response.status == 200 && response.json?["id"]?.string == id, "\(response)")
      }
      let missing = try await client.send("GET", "/v1/models/other")
      #expect(missing.status == 404 && missing.json?["error"]?["code"] == "not_found", "\(missing)")
    }
  }

  @Test("A token is accepted in api-key and x-api-key, and a wrong one there is refused")
  func keys() async throws {
    let directory = TemporaryDirectory()
    let tokens = directory.file(
      "tokens", "alice:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n")
    let client = try InMemory(["SLUICE_AUTH": "", "SLUICE_TOKENS_FILE": tokens]).client
    for name in ["api-key", "x-api-key", "X-API-Key"] {
      #expect(try await client.send("GET", "/v1/models", headers: [name: "secret"]).status == 200, "\(name)")
      #expect(try await client.send("GET", "/v1/models", headers: [name: "wrong"]).status == 401, "\(name)")
      // The key of another service in between.
      #expect(try await client.send("GET", "/v1/models?token=secret", headers: [name: "other"]).status == 200)
    }
  }

  @Test("Responses carry x-request-id: the web server's, or a generated one")
  func requestID() async throws {
    let client = try InMemory().client
    let body: JSON = ["messages": Self.messages, "stream": .bool(true)]
    for (method, path, content) in [
      ("GET", "/v1/models", nil), ("POST", "/v1/chat/completions", body), ("GET", "/v1/none", nil),
    ] {
      let named = try await client.send(method, path, body: content, parameters: ["REQUEST_ID": "abc123"])
      #expect(named.headers["x-request-id"] == "abc123", "\(named)")
      let unnamed = try await client.send(method, path, body: content)
      #expect(unnamed.headers["x-request-id"]?.count == 36, "\(unnamed)")
    }
    #expect(try await client.send("GET", "/healthz").headers["x-request-id"] == nil)
  }

  @Test("A preflight request lets the fields of OpenAI's SDK through, and no others")
  func preflight() async throws {
    let client = try InMemory(["SLUICE_CORS_ORIGINS": "https://a.example"]).client
    let response = try await client.send(
      "OPTIONS", "/v1/chat/completions",
      headers: [
        "Origin": "https://a.example",
        "Access-Control-Request-Headers": "authorization, x-stainless-lang,X-Stainless-OS, x-evil, x-stainless-\"b",
      ])
    let allowed = response.headers["access-control-allow-headers"] ?? ""
    #expect(allowed.hasPrefix("Authorization, api-key, x-api-key, Content-Type"), "\(allowed)")
    #expect(allowed.hasSuffix(", x-stainless-lang, X-Stainless-OS"), "\(allowed)")
    #expect(response.headers["access-control-expose-headers"]?.contains("x-request-id") == true)
  }
}
