import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Web server configuration")
  struct WebServerTests {
    /// Returns the error of a JSON response.
    private func error(_ response: String) throws -> [String: Any] {
      let body = response.components(separatedBy: "\r\n\r\n").last ?? ""
      let object = try JSONSerialization.jsonObject(with: Data(body.utf8)) as? [String: Any]
      return try #require(object?["error"] as? [String: Any], "\(response)")
    }

    @Test("The web server's own refusals are JSON, and its error log contains no token")
    func refusals() async throws {
      let site = try await Site(
        ["SLUICE_ECHO_GAP": "3s"], location: "    limit_req zone=one;",
        server: "error_log DIRECTORY/error.log; access_log DIRECTORY/access.log;",
        replacing: [
          ("fastcgi_read_timeout 620s;", "fastcgi_read_timeout 1s;"),
          ("client_max_body_size 2m;", "client_max_body_size 1k;"),
        ],
        http: "limit_req_zone $http_x_limit zone=one:1m rate=1r/m;")
      let secret = "sluice_secret_of_the_test"
      let large = "{\"message\":\"\(String(repeating: "a", count: 4000))\"}"
      let long = String(repeating: "a", count: 40_000)
      var rows = [
        (try await site.request("/api/chat?token=\(secret)", large), "413", "payload_too_large", false),
        (try await site.request("/chat/stream?token=\(secret)&message=" + long), "414", "payload_too_large", false),
        (
          try await site.request("/api/chat?token=\(secret)", #"{"message":"a b","stream":false}"#), "504",
          "unavailable", true
        ),
      ]
      _ = try await site.request("/healthz?token=\(secret)", nil, ["-H", "X-Limit: a"])
      rows.append(
        (try await site.request("/healthz?token=\(secret)", nil, ["-H", "X-Limit: a"]), "503", "overloaded", true))
      site.sluice.program.signal(SIGKILL)
      #expect(await eventually { !site.sluice.program.isRunning })
      rows.append((try await site.request("/v1/models?token=\(secret)"), "502", "unavailable", true))
      rows.append((try await site.request("/ws/api/chat?token=\(secret)"), "502", "unavailable", true))
      for (response, status, code, isRetriable) in rows {
        #expect(response.hasPrefix("HTTP/1.1 \(status) "), "\(response)")
        #expect(response.contains("Content-Type: application/json"), "\(response)")
        let error = try error(response)
        #expect(error["code"] as? String == code && error["retriable"] as? Bool == isRetriable, "\(response)")
        #expect((error["message"] as? String)?.isEmpty == false && error["type"] is String, "\(response)")
        if status == "502" { #expect(response.contains("Retry-After: 5"), "\(response)") }
      }
      for file in ["error.log", "access.log"] {
        let text = (try? String(contentsOfFile: site.sluice.directory + "/" + file, encoding: .utf8)) ?? ""
        #expect(!text.contains(secret), "\(file): \(text)")
      }
      #expect(!site.nginx.errors.contains(secret))
    }

    @Test("Metrics have a server of their own, as written, and a site does not serve them")
    func metrics() async throws {
      let server = try String(contentsOfFile: packageRoot + "/nginx/sluice-metrics.conf", encoding: .utf8)
      #expect(server.contains("listen 127.0.0.1:9148;"))
      let port = try Loopback.freePort()
      let site = try await Site(
        http: server.replacingOccurrences(of: "9148", with: "\(port)")
          .replacingOccurrences(of: "unix:/run/sluice/sluice.sock", with: "unix:SOCKET")
          .replacingOccurrences(of: "unix:/run/sluice/$1.sock", with: "unix:DIRECTORY/$1"))
      for path in ["/metrics", "/metrics/s"] {
        let curl = try Program("/usr/bin/curl", ["-sS", "http://127.0.0.1:\(port)\(path)"])
        _ = await curl.exitCode()
        #expect(curl.output.contains("sluice_build_info"), "\(path): \(curl.output) \(curl.errors)")
      }
      // Behind any other proxy, the site has none.
      #expect(try await site.request("/metrics").hasPrefix("HTTP/1.1 404"))
      await site.stop()
    }
  }
}
