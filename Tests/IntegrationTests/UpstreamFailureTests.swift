import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("An upstream that fails behind nginx")
  struct UpstreamFailureTests {
    /// What the upstream does, by the word that the client says.
    private static let script: ScriptedUpstream.Script = { exchange in
      let word = exchange.request.body.components(separatedBy: "\"content\":\"").last?.prefix { $0 != "\"" } ?? ""
      switch word {
      case "500": exchange.answer("500 Oops", "{}")
      case "401": exchange.answer("401 No", "{}")
      case "429": exchange.answer("429 Slow", "{}", more: "Retry-After: 9\r\n")
      case "close": break
      case "silent": exchange.waitForClose()
      default:
        exchange.head()
        exchange.delta("Hel")
        exchange.pause(.milliseconds(50))
        switch word {
        case "reset": exchange.reset()
        case "junk": exchange.send("data: <html>\n\n")
        case "error": exchange.send("data: {\"error\":{\"message\":\"boom\"}}\n\ndata: [DONE]\n\n")
        case "hang": exchange.waitForClose()
        default: break
        }
      }
    }

    @Test("is a true status before the first byte and one record after it; nothing is stored")
    func table() async throws {
      let upstream = try ScriptedUpstream(Self.script)
      let servers = try await Servers([
        "SLUICE_UPSTREAM_URL": upstream.baseURL, "SLUICE_FIRST_TOKEN_TIMEOUT": "500ms", "SLUICE_IDLE_TIMEOUT": "500ms",
      ])
      let before: [(String, String, String)] = [
        ("500", "502", "upstream_error"), ("401", "502", "upstream_error"), ("429", "429", "upstream_rate_limited"),
        ("close", "502", "upstream_error"), ("silent", "504", "upstream_timeout"),
      ]
      for (word, status, code) in before {
        let output = await servers.finished(try servers.chat(word))
        #expect(
          output.hasPrefix("HTTP/1.1 \(status) ") && output.contains("\"code\":\"\(code)\""), "\(word): \(output)")
        if word == "429" { #expect(output.contains("Retry-After: 9\r\n")) }
      }
      let after: [(String, String)] = [
        ("reset", "upstream_truncated"), ("cut", "upstream_truncated"), ("junk", "upstream_error"),
        ("error", "upstream_error"), ("hang", "upstream_timeout"),
      ]
      for (word, code) in after {
        let output = await servers.finished(try servers.chat(word))
        let records = output.components(separatedBy: "event: ").dropFirst().map { $0.prefix { $0 != "\n" } }
        #expect(output.hasPrefix("HTTP/1.1 200 ") && records == ["token", "error"], "\(word): \(output)")
        #expect(output.contains("\"code\":\"\(code)\""), "\(word): \(output)")
      }
      #expect(servers.storedLines.isEmpty)
      let outcomes = await servers.outcomes(10)
      #expect(
        outcomes == [
          "upstream_error", "upstream_error", "upstream_error", "upstream_error", "timeout", "upstream_truncated",
          "upstream_truncated", "upstream_error", "upstream_error", "timeout",
        ])
      _ = await servers.stop()
    }

    @Test("is reached over HTTP/2 and TLS with a certificate that is trusted, and not otherwise")
    func tls() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["Hel", "lo"], gap: .milliseconds(20)) }
      let folder = FileManager.default.temporaryDirectory.path + "/sluice-tls-\(UUID().uuidString)"
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: folder) }
      let openssl = try Program(
        "/usr/bin/openssl",
        [
          "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
          "subjectAltName=IP:127.0.0.1", "-keyout", folder + "/key", "-out", folder + "/cert",
        ])
      #expect(await openssl.exitCode() == 0, "\(openssl.errors)")
      let socket = try Loopback.listen()
      let port = Loopback.port(of: socket)
      do { _ = consume socket }
      let configuration = """
        daemon off; pid \(folder)/pid; error_log stderr; events {}
        http {
          access_log \(folder)/access; log_format x '$server_protocol';
          access_log \(folder)/protocol x;
          client_body_temp_path \(folder)/a; proxy_temp_path \(folder)/b; fastcgi_temp_path \(folder)/c;
          uwsgi_temp_path \(folder)/d; scgi_temp_path \(folder)/e;
          server {
            listen 127.0.0.1:\(port) ssl http2;
            ssl_certificate \(folder)/cert; ssl_certificate_key \(folder)/key;
            location / { proxy_pass http://127.0.0.1:\(upstream.port); proxy_buffering off; proxy_http_version 1.1; }
          }
        }
        """
      try configuration.write(toFile: folder + "/nginx.conf", atomically: true, encoding: .utf8)
      let nginx = try Program("/usr/sbin/nginx", ["-p", folder, "-c", folder + "/nginx.conf", "-e", "stderr"])
      #expect(await eventually { FileManager.default.fileExists(atPath: folder + "/pid") })
      let url = "https://127.0.0.1:\(port)/v1"
      let trusting = try await Servers([
        "SLUICE_UPSTREAM_URL": url, "CURL_CA_BUNDLE": folder + "/cert", "SLUICE_STREAMS_PER_USER": "0",
      ])
      var curls: [Program] = []
      for _ in 0..<20 { curls.append(try trusting.chat("Hi")) }
      for curl in curls {
        let output = await trusting.finished(curl)
        #expect(output.contains("event: done"), "\(output)")
      }
      let protocols = try String(contentsOfFile: folder + "/protocol", encoding: .utf8)
      #expect(protocols.split(separator: "\n").allSatisfy { $0 == "HTTP/2.0" }, "\(protocols)")
      _ = await trusting.stop()
      let wary = try await Servers(["SLUICE_UPSTREAM_URL": url])
      let output = await wary.finished(try wary.chat("Hi"))
      #expect(output.hasPrefix("HTTP/1.1 502 ") && output.contains("upstream_error"), "\(output)")
      _ = await wary.stop()
      nginx.signal(SIGTERM)
      #expect(await nginx.exitCode() == 0)
    }
  }
}
