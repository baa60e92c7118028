import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

extension Integration {
  @Suite("nginx location settings")
  struct LocationTests {
    @Test("A location can disable streaming for its endpoints, which then link to their alternates")
    func features() async throws {
      let off = [
        "SLUICE_STREAM_CHAT", "SLUICE_STREAM_REPORT", "FEATURE_STREAMING", "AI_STREAMING_ENABLED", "ENABLE_STREAMING",
      ].map { "    fastcgi_param \($0) off;" }.joined(separator: "\n")
      let site = try await Site(location: off)
      let features = try await site.request("/api/features").json["features"] ?? .null
      #expect(
        features["SLUICE_STREAM_CHAT"] == .bool(false) && features["ENABLE_STREAMING"] == .bool(false), "\(features)")
      #expect(try await site.request("/api/chat", #"{"message":"a"}"#).json["message"] == "a")
      let refused: [(String, String?, String?)] = [
        ("/stream/", #"{"content":"a","chat_id":1}"#, "/messages/"), ("/chat/stream?message=a", nil, "/chat/message"),
        ("/chat/onboarding-stream?message=a", nil, nil), ("/api/stream/ai-block/quiz?input=a", nil, nil),
        ("/api/ai/stream-report", #"{"input":"{}"}"#, "/api/ai/report"),
      ]
      for (path, body, twin) in refused {
        let output = try await site.request(path, body)
        #expect(output.status == 404 && output.errorCode == "streaming_disabled", "\(path): \(output)")
        #expect(output.field("Link") == twin.map { "<\($0)>; rel=\"alternate\"" }, "\(path): \(output)")
      }
      #expect(try await site.request("/messages/", #"{"content":"a","chat_id":1}"#).json["content"] == "a")
      #expect(try await site.request("/chat/message", #"{"message":"a"}"#).json["message"] == "a")
      #expect(try await site.request("/api/ai/report", #"{"input":"{}"}"#).json == ["report": [:]])
      await site.stop()
    }

    @Test("An nginx with its own buffering in front of the shipped configuration streams too")
    func outerProxy() async throws {
      let site = try await Site(
        ["SLUICE_ECHO_GAP": "100ms"], server: "listen unix:DIRECTORY/inner;",
        http: "server { listen unix:DIRECTORY/outer; location / { proxy_pass http://unix:DIRECTORY/inner; } }")
      let curl = try Program(
        "/usr/bin/curl",
        [
          "-sSN", "--unix-socket", site.sluice.directory + "/outer", "-H", "Content-Type: application/json", "-d",
          #"{"message":"one two three four five six"}"#, "http://localhost/api/chat",
        ])
      #expect(await curl.exitCode() == 0)
      #expect(curl.output.contains("event: done"), "\(curl.output) \(site.nginx.errors)")
      // Buffered, all of it would come at the end.
      #expect(curl.chunks.count > 4, "\(curl.chunks.count) parts")
      await site.stop()
    }

    @Test("A location can set a system prompt, which precedes all other messages, also under /v1")
    func systemPrompt() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["a"]) }
      let site = try await Site(
        ["SLUICE_UPSTREAM_URL": upstream.baseURL],
        location: "    fastcgi_param SLUICE_SYSTEM_PROMPT_FILE DIRECTORY/system;", files: ["system": "Be brief.\n"])
      _ = try await site.request("/api/chat", #"{"message":"Hi"}"#)
      _ = try await site.request(
        "/v1/chat/completions", #"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}]}"#
      )
      #expect(upstream.requests.count == 2)
      #expect(
        upstream.requests.first?.body.contains(
          #""messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]"#) == true,
        "\(upstream.requests)")
      #expect(
        upstream.requests.last?.body.contains(
          #""messages":[{"role":"system","content":"Be brief."},{"role":"system","content":"Be kind."},{"role":"user","#
        )
          == true, "\(upstream.requests)")
      await site.stop()
    }

    @Test("A parameter of the web server that begins as a setting's but has no effect is logged once, with the reason")
    func ignored() async throws {
      let site = try await Site(
        location: """
              fastcgi_param SLUICE_MODLE x;
              fastcgi_param SLUICE_MAX_BODY 2M;
              fastcgi_param SLUICE_MODEL m;
          """)
      for _ in 0..<3 { #expect(try await site.request("/api/chat", #"{"message":"a"}"#).status == 200) }
      await site.stop()
      let found = site.sluice.program.log("parameter ignored").map { "\($0["parameter"] ?? ""): \($0["reason"] ?? "")" }
      #expect(
        found.sorted() == [
          "SLUICE_MAX_BODY: applies to the whole process: set it in the environment, not with fastcgi_param",
          "SLUICE_MODLE: is not a setting; did you mean SLUICE_MODEL?",
        ])
    }

    @Test("An invalid setting of a location, such as STREAMING_BACKEND=socket, causes a 500 and is logged")
    func issue() async throws {
      let site = try await Site(location: "    fastcgi_param STREAMING_BACKEND socket;")
      let output = try await site.request("/api/chat", #"{"message":"a"}"#)
      #expect(output.status == 500 && output.errorCode == "internal" && !output.contains("socket"), "\(output)")
      #expect(
        await eventually { site.sluice.program.errors.contains("STREAMING_BACKEND must be sse, websocket or both") })
      await site.stop()
      let check = try Program(
        releaseDirectory + "/sluice", ["--check"],
        environment: ["SLUICE_AUTH": "none", "STREAMING_BACKEND": "socket"])
      #expect(await check.exitCode() == 1)
      #expect(check.errors.contains("STREAMING_BACKEND must be sse, websocket or both"), "\(check.errors)")
    }

    @Test(
      "REMOTE_USER identifies the user, cannot be set by a header, and gets 403 if it cannot name a directory")
    func remoteUser() async throws {
      let long = String(repeating: "é", count: 50)
      let site = try await Site(
        ["SLUICE_TRUST_REMOTE_USER": "on", "SLUICE_AUTH": ""],
        location: """
              auth_basic "who"; auth_basic_user_file DIRECTORY/users;
              fastcgi_param REMOTE_USER $remote_user;
          """, files: ["users": "ada:{PLAIN}a\n\(long):{PLAIN}b\n"])
      #expect(try await site.request("/api/sessions").status == 401)
      #expect(
        try await site.request("/api/chat", #"{"message":"hi"}"#, ["-u", "ada:a", "-H", "Remote-User: eve"]).status
          == 200)
      // A browser adds the web server's credentials automatically; pages of other origins must not benefit from them.
      for from in ["cross-site", "same-site"] {
        let image = ["-u", "ada:a", "-H", "Sec-Fetch-Site: \(from)"]
        let output = try await site.request("/chat/onboarding-stream?message=x", nil, image)
        #expect(output.errorCode == "forbidden", "\(output)")
      }
      #expect(
        try await site.request("/api/sessions", nil, ["-u", "ada:a", "-H", "Sec-Fetch-Site: same-origin"]).status == 200
      )
      #expect(FileManager.default.fileExists(atPath: site.sluice.directory + "/state/users/ada/sessions"))
      #expect(!FileManager.default.fileExists(atPath: site.sluice.directory + "/state/users/eve"))
      let forbidden = try await site.request("/api/sessions", nil, ["-u", "\(long):b"])
      #expect(forbidden.status == 403 && forbidden.errorCode == "forbidden", "\(forbidden)")
      await site.stop()
    }

    @Test("Pages of the configured origins are allowed, including their preflights, and no others")
    func cors() async throws {
      let site = try await Site(["SLUICE_CORS_ORIGINS": "https://a.example http://b.example:8000"])
      func send(_ origin: String, _ more: [String] = [], _ json: String? = #"{"message":"a"}"#) async throws -> String {
        try await site.request("/api/chat", json, ["-H", "Origin: \(origin)"] + more)
      }
      for origin in ["https://a.example", "http://b.example:8000"] {
        let output = try await send(origin)
        #expect(output.field("Access-Control-Allow-Origin") == origin && output.field("Vary") == "Origin", "\(output)")
        #expect(output.field("Access-Control-Expose-Headers")?.contains("Sluice-Stream-Id") == true)
        // The page can read a refusal too.
        #expect(try await send(origin, [], "{}").field("Access-Control-Allow-Origin") == origin)
        let preflight = try await send(
          origin, ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST"], nil)
        #expect(
          preflight.status == 204 && preflight.field("Access-Control-Allow-Methods") == "POST, OPTIONS", "\(preflight)")
        #expect(preflight.field("Access-Control-Allow-Headers")?.contains("Idempotency-Key") == true)
      }
      for origin in ["https://c.example", "https://a.example.evil", "http://a.example", "null", "https://A.example"] {
        for output in [try await send(origin), try await send(origin, ["-X", "OPTIONS"], nil)] {
          #expect(!output.contains("Access-Control-"), "\(origin): \(output)")
        }
      }
      await site.stop()
    }
  }
}
