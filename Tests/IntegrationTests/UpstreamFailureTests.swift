import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Upstream failures behind nginx")
  struct UpstreamFailureTests {
    /// The upstream's script: the last message of the request selects how it responds or fails.
    private static let script: ScriptedUpstream.Script = { exchange in
      let word = exchange.request.body.components(separatedBy: "\"content\":\"").last?.prefix { $0 != "\"" } ?? ""
      switch word {
      case "500": exchange.respond("500 Oops", "{}")
      case "401": exchange.respond("401 No", "{}")
      case "429": exchange.respond("429 Slow", "{}", more: "Retry-After: 9\r\n")
      case "close": break
      case "silent": exchange.waitUntilClosed()
      default:
        exchange.sendHead()
        exchange.sendDelta("Hel")
        exchange.pause(.milliseconds(50))
        switch word {
        case "reset": exchange.reset()
        case "malformed": exchange.send("data: <html>\n\n")
        case "error": exchange.send("data: {\"error\":{\"message\":\"boom\"}}\n\ndata: [DONE]\n\n")
        case "hang": exchange.waitUntilClosed()
        default: break
        }
      }
    }

    @Test("An upstream failure is a status before the first byte and one error record after it, and nothing is stored")
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
        let output = await servers.output(of: try servers.chat(word))
        #expect(
          output.hasPrefix("HTTP/1.1 \(status) ") && output.contains("\"code\":\"\(code)\""), "\(word): \(output)")
        if word == "429" { #expect(output.contains("Retry-After: 9\r\n")) }
      }
      let after: [(String, String)] = [
        ("reset", "upstream_truncated"), ("cut", "upstream_truncated"), ("malformed", "upstream_error"),
        ("error", "upstream_error"), ("hang", "upstream_timeout"),
      ]
      for (word, code) in after {
        let output = await servers.output(of: try servers.chat(word))
        let records = output.components(separatedBy: "event: ").dropFirst().map { $0.prefix { $0 != "\n" } }
        #expect(output.hasPrefix("HTTP/1.1 200 ") && records == ["token", "error"], "\(word): \(output)")
        #expect(output.contains("\"code\":\"\(code)\""), "\(word): \(output)")
      }
      #expect(servers.storedLines.isEmpty)
      let outcomes = await servers.outcomes(10)
      let ends = servers.demo.log("stream ended")
      #expect(ends.allSatisfy { $0["level"] as? String == "warning" }, "\(ends)")
      for (setting, count) in [("SLUICE_FIRST_TOKEN_TIMEOUT", 1), ("SLUICE_IDLE_TIMEOUT", 1)] {
        let found = ends.filter { ($0["detail"] as? String)?.contains(setting) == true }
        #expect(found.count == count, "\(setting) in \(ends)")
      }
      let metrics = try await servers.get("/metrics", token: "none")
      #expect(metrics.contains("sluice_stream_failures_total{code=\"upstream_timeout\",cause="), "\(metrics)")
      #expect(
        outcomes == [
          "upstream_error", "upstream_error", "upstream_error", "upstream_error", "timeout", "upstream_truncated",
          "upstream_truncated", "upstream_error", "upstream_error", "timeout",
        ])
      _ = await servers.stop()
    }

    @Test("An upstream is used over HTTP/2 and TLS only if its certificate is trusted")
    func tls() async throws {
      let upstream = try ScriptedUpstream { $0.stream(["Hel", "lo"], gap: .milliseconds(20)) }
      let front = try await TLSFront(of: upstream)
      defer { front.nginx.signal(SIGTERM) }
      let trusting = try await Servers([
        "SLUICE_UPSTREAM_URL": front.url, "CURL_CA_BUNDLE": front.certificate, "SLUICE_STREAMS_PER_USER": "0",
      ])
      var curls: [Program] = []
      for _ in 0..<20 { curls.append(try trusting.chat("Hi")) }
      for curl in curls {
        let output = await trusting.output(of: curl)
        #expect(output.contains("event: done"), "\(output)")
      }
      let protocols = try String(contentsOfFile: front.directory + "/protocol", encoding: .utf8)
      #expect(protocols.split(separator: "\n").allSatisfy { $0 == "HTTP/2.0" }, "\(protocols)")
      _ = await trusting.stop()
      let wary = try await Servers(["SLUICE_UPSTREAM_URL": front.url])
      let output = await wary.output(of: try wary.chat("Hi"))
      #expect(output.hasPrefix("HTTP/1.1 502 ") && output.contains("upstream_error"), "\(output)")
      _ = await wary.stop()
    }

    @Test(
      "A disconnect, a stop or a timeout stops generation within 100 ms, even while another stream is running",
      arguments: ["http/1.1", "https, http/1.1", "https, http/2"])
    func stopped(version: String) async throws {
      let upstream = try ScriptedUpstream { exchange in
        exchange.sendHead()
        exchange.sendDelta("a")
        // No stream sends anything further, including one that shares the connection.
        exchange.waitUntilClosed(within: .seconds(30))
      }
      let front = version == "http/1.1" ? nil : try await TLSFront(of: upstream, http2: version.hasSuffix("2"))
      defer { front?.nginx.signal(SIGTERM) }
      var environment = ["SLUICE_UPSTREAM_URL": front?.url ?? upstream.baseURL, "SLUICE_IDLE_TIMEOUT": "1s"]
      if let front { environment["CURL_CA_BUNDLE"] = front.certificate }
      let servers = try await Servers(environment)
      func begin(_ more: [String] = []) async throws -> Program {
        let curl = try servers.chat("x")
        #expect(await eventually { curl.output.contains("event: token") }, "\(curl.output)\(curl.errors)")
        return curl
      }
      for isShared in [false, true] {
        for way in ["leaves", "stops", "waits"] {
          let count = upstream.closeTimes.count
          let first = try await begin()
          // The second stream starts later, so that it still runs when the first one reaches the idle timeout.
          if isShared, way == "waits" { try await Task.sleep(for: .milliseconds(700)) }
          let other = isShared ? try await begin() : nil
          let start: ContinuousClock.Instant
          switch way {
          case "leaves":
            start = .now
            first.signal(SIGKILL)
          case "stops":
            let id = first.output.field("Sluice-Stream-Id") ?? ""
            let stop = try servers.curl("/api/streams/\(id)", ["-X", "DELETE"])
            start = .now
            _ = await stop.exitCode()
          default:
            #expect(await eventually { first.output.contains("upstream_timeout") })
            start = first.chunks.last?.at ?? .now
          }
          #expect(await eventually { upstream.closeTimes.count > count })
          let time = (upstream.closeTimes.dropFirst(count).first ?? .now) - start
          // A stop takes longer, because it is a separate request by another curl process.
          #expect(time < .milliseconds(way == "stops" ? 200 : 100), "\(version), \(way), shared: \(isShared): \(time)")
          other?.signal(SIGKILL)
          #expect(await eventually { upstream.closeTimes.count == count + (isShared ? 2 : 1) })
        }
      }
      _ = await servers.stop()
    }
  }
}

/// nginx with TLS and a self-signed certificate, in front of an upstream.
private final class TLSFront: Sendable {
  let directory: String
  let certificate: String
  let url: String
  let nginx: Program

  init(of upstream: ScriptedUpstream, http2: Bool = true) async throws {
    directory = FileManager.default.temporaryDirectory.path + "/sluice-tls-\(UUID().uuidString)"
    certificate = directory + "/cert"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    let openssl = try Program(
      "/usr/bin/openssl",
      [
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
        "subjectAltName=IP:127.0.0.1", "-keyout", directory + "/key", "-out", certificate,
      ])
    #expect(await openssl.exitCode() == 0, "\(openssl.errors)")
    let port = try Loopback.freePort()
    url = "https://127.0.0.1:\(port)/v1"
    let configuration = """
      daemon off; pid \(directory)/pid; error_log stderr; events {}
      http {
        log_format x '$server_protocol';
        access_log \(directory)/protocol x;
        client_body_temp_path \(directory)/a; proxy_temp_path \(directory)/b; fastcgi_temp_path \(directory)/c;
        uwsgi_temp_path \(directory)/d; scgi_temp_path \(directory)/e;
        server {
          listen 127.0.0.1:\(port) ssl\(http2 ? " http2" : "");
          ssl_certificate \(certificate); ssl_certificate_key \(directory)/key;
          location / { proxy_pass http://127.0.0.1:\(upstream.port); proxy_buffering off; proxy_http_version 1.1; }
        }
      }
      """
    try configuration.write(toFile: directory + "/nginx.conf", atomically: true, encoding: .utf8)
    nginx = try Program("/usr/sbin/nginx", ["-p", directory, "-c", directory + "/nginx.conf", "-e", "stderr"])
    let pid = directory + "/pid"
    #expect(await eventually { FileManager.default.fileExists(atPath: pid) })
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }
}
