import EventLoop
import Foundation
import SluiceTesting
import Testing

/// A way to put Sluice behind a web server, configured as the guide says.
private enum Front: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case nginx, lighttpd, lighttpdWithoutFix, lighttpdStartsSluice, apache, apacheHandler, caddy, haproxy,
    haproxyMultiplexing,
    h2o
  case lighttpdCGI, apacheCGI, fcgiwrap

  var testDescription: String { rawValue }
  var isCGI: Bool { [.lighttpdCGI, .apacheCGI, .fcgiwrap].contains(self) }
  /// Whether the server ends the request when its client leaves, without writing.
  var noticesAtOnce: Bool { [.nginx, .haproxy].contains(self) }
  var isHAProxy: Bool { [.haproxy, .haproxyMultiplexing].contains(self) }
}

/// A web server in front of Sluice, whose model is a script that does what its message says.
private final class OtherSite: Sendable {
  let directory = TemporaryDirectory()
  let url: String
  let sluice: Program?
  let servers: [Program]

  private static let guide = try? String(contentsOfFile: packageRoot + "/nginx/other-web-servers.md", encoding: .utf8)

  /// Returns a block of the guide, by the name behind its fence.
  private static func block(_ name: String) throws -> String {
    let guide = try #require(guide)
    let start = try #require(guide.range(of: "```\(name)\n"), "no block \(name)").upperBound
    return String(guide[start..<(try #require(guide.range(of: "\n```", range: start..<guide.endIndex)).lowerBound)])
  }

  init(_ front: Front) async throws {
    let path = directory.path
    let port = try Loopback.freePort()
    url = "http://127.0.0.1:\(port)"
    // Apache's programs run as another user.
    unsafe chmod(path, 0o777)
    for name in ["state", "www", "cgi-bin"] {
      try FileManager.default.createDirectory(atPath: "\(path)/\(name)", withIntermediateDirectories: true)
      unsafe chmod("\(path)/\(name)", 0o777)
    }
    try FileManager.default.copyItem(atPath: releaseDirectory + "/sluice", toPath: path + "/sluice")
    let model = directory.file(
      "model.sh",
      """
      #!/bin/sh
      prompt=$(cat)
      case "$prompt" in
      *'"silent"'*) echo $$ >>\(path)/pids; exec sleep 60 ;;
      *'"first"'*) echo $$ >>\(path)/pids; echo one; exec sleep 60 ;;
      *'"fails"'*) echo half; exit 1 ;;
      *'"slow"'*) for word in a b c d e; do sleep 0.2; printf '%s ' $word; done ;;
      *) printf 'length %s' ${#prompt} ;;
      esac
      """)
    unsafe chmod(model, 0o755)
    let tokens = directory.file(
      "tokens", "alice:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n")
    let settings = [
      "SLUICE_TOKENS_FILE": tokens, "SLUICE_STATE": path + "/state", "SLUICE_GENERATOR": "command",
      "SLUICE_COMMAND": model, "SLUICE_COMMAND_PROCESSES": "50", "SLUICE_STREAMS_PER_USER": "6",
      "SLUICE_HEARTBEAT": front.noticesAtOnce ? "0" : "1s", "SLUICE_MAX_MESSAGE": "1M",
    ]
    _ = directory.file("sluice.env", settings.map { "\($0.key)=\($0.value)\n" }.joined())
    let socket = path + "/sluice.sock"
    let startsSluice = front.isCGI || front == .lighttpdStartsSluice
    sluice =
      startsSluice
      ? nil : try Program(path + "/sluice", environment: settings.merging(["SLUICE_LISTEN": "unix:\(socket)"]) { $1 })
    if !startsSluice {
      #expect(await eventually { (try? FastCGIClient(path: socket)) != nil })
      unsafe chmod(socket, 0o777)
    }
    servers = try await Self.start(front, in: directory, port: port)
    let url = url
    let isUp = await eventually {
      let probe = try? Program("/usr/bin/curl", ["-sS", "-o", "/dev/null", url + "/healthz"])
      return await probe?.exitCode() == 0
    }
    try #require(isUp, "\(servers.map(\.errors)) \(sluice?.errors ?? "")")
  }

  /// Starts the web server with the block of the guide.
  private static func start(_ front: Front, in directory: TemporaryDirectory, port: UInt16) async throws -> [Program] {
    let path = directory.path
    func local(_ text: String) -> String {
      [
        ("/run/sluice/sluice.sock", path + "/sluice.sock"), ("/run/lighttpd/sluice.sock", path + "/sluice.sock"),
        ("/usr/lib/cgi-bin", path + "/cgi-bin"), ("/usr/bin/sluice", path + "/sluice"),
        ("/etc/sluice/sluice.env", path + "/sluice.env"), ("/run/fcgiwrap.socket", path + "/fcgiwrap.sock"),
        ("http://example.com", "http://127.0.0.1:\(port)"), ("bind :80", "bind 127.0.0.1:\(port)"),
        ("listen: { port: 80 }", "listen: { host: 127.0.0.1, port: \(port) }"),
      ].reduce(text) { $0.replacingOccurrences(of: $1.0, with: $1.1) }
    }
    func guide(_ name: String) throws -> String { local(try block(name)) }
    let program = directory.file("cgi-bin/sluice", try guide("cgi-program"))
    unsafe chmod(program, 0o755)
    switch front {
    case .nginx, .fcgiwrap:
      var shipped = local(try String(contentsOfFile: packageRoot + "/nginx/sluice.conf", encoding: .utf8))
      var programs: [Program] = []
      if front == .fcgiwrap {
        shipped = shipped.replacingOccurrences(
          of: "fastcgi_pass unix:\(path)/sluice.sock;", with: try guide("nginx-fcgiwrap"))
        programs.append(try Program("/usr/sbin/fcgiwrap", ["-s", "unix:\(path)/fcgiwrap.sock", "-c", "20"]))
        #expect(await eventually { FileManager.default.fileExists(atPath: path + "/fcgiwrap.sock") })
      }
      let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map { "\($0)_temp_path \(path)/\($0);" }
      let file = directory.file(
        "nginx.conf",
        """
        daemon off; pid \(path)/pid; error_log stderr; events {} \(getuid() == 0 ? "user root;" : "")
        http { access_log off; \(paths.joined()) server { listen 127.0.0.1:\(port); \(shipped) } }
        """)
      return programs + [try Program("/usr/sbin/nginx", ["-p", path, "-c", file, "-e", "stderr"])]
    case .lighttpd, .lighttpdWithoutFix, .lighttpdStartsSluice, .lighttpdCGI:
      var text = try guide(front == .lighttpdCGI ? "lighttpd-cgi" : "lighttpd")
      if front == .lighttpdStartsSluice {
        text = text.replacingOccurrences(
          of: "    \"socket\" => \"\(path)/sluice.sock\",", with: try guide("lighttpd-starts-sluice"))
      }
      if front == .lighttpdWithoutFix {
        text = text.replacingOccurrences(of: "\"fix-root-scriptname\" => \"enable\"", with: "")
      }
      let file = directory.file(
        "lighttpd.conf",
        """
        server.document-root = "\(path)/www"
        server.bind = "127.0.0.1"
        server.port = \(port)
        server.upload-dirs = ( "\(path)" )
        server.modules = ()
        \(text)
        """)
      return [try Program("/usr/sbin/lighttpd", ["-D", "-f", file])]
    case .apache, .apacheHandler, .apacheCGI:
      let block =
        ["apache": "apache", "apacheHandler": "apache-handler", "apacheCGI": "apache-cgi"][front.rawValue] ?? ""
      let modules = ["mpm_event", "authz_core", "env", "alias", "proxy", "proxy_fcgi", "cgid"].map {
        "LoadModule \($0)_module /usr/lib/apache2/modules/mod_\($0).so"
      }
      let file = directory.file(
        "apache.conf",
        """
        ServerRoot \(path)
        ServerName localhost
        Listen 127.0.0.1:\(port)
        PidFile \(path)/apache.pid
        ErrorLog /dev/stderr
        DocumentRoot \(path)/www
        \(getuid() == 0 ? "User www-data\nGroup www-data" : "")
        \(modules.joined(separator: "\n"))
        ScriptSock \(path)/cgid.sock
        \(try guide(block))
        """)
      return [try Program("/usr/sbin/apache2", ["-f", file, "-DFOREGROUND"])]
    case .caddy:
      let file = directory.file("Caddyfile", "{\n\tadmin off\n\tauto_https off\n}\n" + (try guide("caddy")))
      return [
        try Program(
          "/usr/bin/caddy", ["run", "--config", file, "--adapter", "caddyfile"], environment: ["HOME": path])
      ]
    case .haproxy, .haproxyMultiplexing:
      var text = try guide("haproxy")
      if front == .haproxyMultiplexing {
        text = text.replacingOccurrences(
          of: "  no option keep-conn", with: "  option keep-conn\n  option get-values\n  option mpxs-conns")
        text += "\n  http-reuse always"
      }
      return [try Program("/usr/sbin/haproxy", ["-f", directory.file("haproxy.cfg", text + "\n")])]
    case .h2o:
      let user = getuid() == 0 ? "user: root\n" : ""
      return [try Program("/usr/bin/h2o", ["-c", directory.file("h2o.conf", user + (try guide("h2o")))])]
    }
  }

  /// Starts curl with the token.
  func curl(_ path: String, _ arguments: [String] = [], token: Bool = true) throws -> Program {
    let authorization = token ? ["-H", "Authorization: Bearer secret"] : []
    return try Program("/usr/bin/curl", ["-sSNi", "--max-time", "30"] + authorization + arguments + [url + path])
  }

  func chat(_ message: String, _ more: [String] = [], token: Bool = true) throws -> Program {
    try curl(
      "/api/chat", ["-H", "Content-Type: application/json", "-d", "{\"message\":\"\(message)\"}"] + more, token: token)
  }

  /// The process ids of the model that are still running.
  var models: [pid_t] {
    let text = (try? String(contentsOfFile: directory.path + "/pids", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").compactMap { pid_t($0) }.filter { kill($0, 0) == 0 }
  }

  /// The number of times that the model was started to be silent.
  var starts: Int {
    ((try? String(contentsOfFile: directory.path + "/pids", encoding: .utf8)) ?? "").split(separator: "\n").count
  }

  func stop() async {
    for server in servers.reversed() {
      // fcgiwrap leaves its children behind.
      let children =
        (try? String(contentsOfFile: "/proc/\(server.pid)/task/\(server.pid)/children", encoding: .utf8)) ?? ""
      server.signal(SIGTERM)
      if server === servers.first, servers.count > 1 {
        for child in children.split(separator: " ").compactMap({ pid_t($0) }) { kill(child, SIGTERM) }
      }
    }
    sluice?.signal(SIGTERM)
    for program in servers + (sluice.map { [$0] } ?? []) { _ = await program.exitCode(within: .seconds(10)) }
  }
}

extension Integration {
  @Suite("Other web servers")
  struct OtherServersTests {
    private func text(_ response: String) -> String {
      response.events.compactMap { $0.json["t"]?.string }.joined()
    }

    @Test("Sluice behaves the same behind each web server of the guide", arguments: Front.allCases)
    fileprivate func contract(front: Front) async throws {
      let site = try await OtherSite(front)
      func output(_ program: Program) async -> String {
        _ = await program.exitCode()
        return program.output + program.errors
      }

      // Before the first byte: authentication, also by the query, and whatever is wrong with the request.
      let refused = await output(try site.chat("x", token: false))
      #expect(refused.status == 401 && refused.errorCode == "unauthorized", "\(refused)")
      #expect(refused.field("WWW-Authenticate") == "Bearer", "\(refused)")
      let query = await output(try site.curl("/chat/stream?message=x&token=secret", token: false))
      #expect(query.contains(#""type":"complete""#), "\(query)")
      let head = await output(try site.curl("/chat/stream?message=x", ["-I"]))
      #expect(head.status == 200 && head.field("Content-Type")?.hasPrefix("text/event-stream") == true, "\(head)")
      // It needs no token, so the web server must not pass it on.
      let metrics = await output(try site.curl("/metrics", token: false))
      #expect(!metrics.contains("sluice_build_info"), "\(metrics)")
      let encoded = await output(try site.curl("/%61pi/features"))
      #expect(encoded.status == 200 && encoded.json["features"] != nil, "\(encoded)")
      let missing = await output(try site.curl("/api/sessions/none"))
      #expect(missing.status == 404 && missing.errorCode == "not_found", "\(missing)")

      // Bodies: large, chunked, too large.
      let large = site.directory.file("large", "{\"message\":\"\(String(repeating: "m", count: 900_000))\"}")
      let huge = site.directory.file("huge", "{\"message\":\"\(String(repeating: "m", count: 3_000_000))\"}")
      let json = ["-H", "Content-Type: application/json"]
      let chunked = ["-H", "Transfer-Encoding: chunked"]
      let answer = await output(try site.curl("/api/chat", json + ["-d", "@" + large]))
      #expect(text(answer).hasPrefix("length 900") && answer.events.last?.type == "done", "\(answer)")
      let small = await output(try site.chat("x", chunked))
      #expect(text(small).hasPrefix("length") && small.events.last?.type == "done", "\(small)")
      let pieces = await output(try site.curl("/api/chat", json + chunked + ["-d", "@" + large]))
      let tooLarge = await output(try site.curl("/api/chat", json + ["-H", "Expect:", "-d", "@" + huge]))
      // nginx refuses it before Sluice does, with the same code.
      #expect(tooLarge.status == 413 && tooLarge.errorCode == "payload_too_large", "\(tooLarge)")
      if front.isHAProxy {
        #expect(pieces.status == 400 && pieces.contains("invalid request"), "\(pieces)")
      } else {
        #expect(text(pieces).hasPrefix("length 900"), "\(pieces)")
        let endless = await output(try site.curl("/api/chat", json + chunked + ["-H", "Expect:", "-d", "@" + huge]))
        #expect(endless.status == 413 && endless.errorCode == "payload_too_large", "\(endless)")
      }

      // Tokens one by one, terminal records, and the stored turn.
      async let failure = output(try site.chat("fails"))
      let slow = try site.chat("slow")
      let words = await output(slow)
      #expect(text(words) == "a b c d e " && words.events.last?.type == "done", "\(words)")
      let arrivals = slow.chunks.filter { String(decoding: $0.bytes, as: UTF8.self).contains("event: token") }
      #expect(arrivals.count == 5, "\(words) in \(arrivals.count) pieces")
      #expect(try await failure.events.map(\.type) == ["token", "error"])
      let session = try #require(words.events.last?.json["sessionId"]?.string)
      let stored = await output(try site.curl("/api/sessions/\(session)"))
      #expect(stored.json["turns"]?.array?.count == 1, "\(stored)")

      // Heartbeats, and clients that leave while the model is silent.
      #expect(site.starts == 0)
      let silent = [try site.chat("silent"), try site.chat("first")]
      #expect(await eventually { site.starts == 2 && silent[1].output.contains("one") }, "\(silent.map(\.output))")
      if !front.noticesAtOnce {
        for stream in silent {
          #expect(
            await eventually { stream.output.components(separatedBy: "event: heartbeat").count > 2 }, "\(stream.output)"
          )
        }
      }
      for stream in silent { stream.signal(SIGKILL) }
      #expect(await eventually(within: .seconds(front.noticesAtOnce ? 1 : 10)) { site.models.isEmpty })

      // The limit of streams is one for all processes.
      let streams = try (0..<6).map { _ in try site.chat("silent") }
      #expect(await eventually { site.models.count == 6 })
      let seventh = await output(try site.chat("x"))
      #expect(seventh.status == 429 && seventh.errorCode == "too_many_streams", "\(seventh)")
      for stream in streams { stream.signal(SIGKILL) }
      await site.stop()
    }

    /// Returns the processes whose environment contains a path.
    private static func processes(with path: String) -> [pid_t] {
      let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { pid_t($0) } ?? []
      return all.filter { pid in
        let environment = (try? Data(contentsOf: URL(fileURLWithPath: "/proc/\(pid)/environ"))) ?? Data()
        return environment.range(of: Data(path.utf8)) != nil
      }
    }

    @Test("Sluice listens on the socket or the address that any of several starters passes to it")
    func spawners() async throws {
      let directory = TemporaryDirectory()
      let environment = ["SLUICE_AUTH": "none", "SLUICE_STATE": directory.path + "/state"]
      let sluice = releaseDirectory + "/sluice"
      let port = try Loopback.freePort()
      for (index, (command, isTCP)) in [
        ("/usr/bin/spawn-fcgi -s SOCKET -n -- SLUICE", false),
        ("/usr/bin/spawn-fcgi -a 127.0.0.1 -p PORT -n -- SLUICE", true),
        ("/usr/bin/spawn-fcgi -s SOCKET -n -- /usr/bin/multiwatch -f 2 -- SLUICE", false),
        ("/usr/bin/systemd-socket-activate -E SLUICE_AUTH=none -E SLUICE_STATE=STATE -l SOCKET SLUICE", false),
        ("/usr/bin/env SLUICE_LISTEN=127.0.0.1:PORT SLUICE", true),
        ("/usr/bin/cgi-fcgi -start -connect SOCKET SLUICE", false),
      ].enumerated() {
        let socket = "\(directory.path)/\(index)"
        let values = ["SOCKET": socket, "SLUICE": sluice]
        let words = command.split(separator: " ").map { word in
          values[String(word)]
            ?? word.replacingOccurrences(of: "PORT", with: "\(port)")
            .replacingOccurrences(of: "=STATE", with: "=\(directory.path)/state")
        }
        let program = try Program(words[0], Array(words.dropFirst()), environment: environment)
        let address = isTCP ? "127.0.0.1:\(port)" : socket
        var response = ""
        #expect(
          await eventually {
            let client = try? Program(
              "/usr/bin/cgi-fcgi", ["-bind", "-connect", address],
              environment: ["REQUEST_METHOD": "GET", "REQUEST_URI": "/healthz"], input: "")
            _ = await client?.exitCode(within: .seconds(5))
            response = (client?.output ?? "") + (client?.errors ?? "")
            return response.contains(#""status":"ok""#)
          }, "\(command): \(response) \(program.errors)")
        program.signal(SIGTERM)
        // What cgi-fcgi and multiwatch have started is no child of the test.
        for pid in Self.processes(with: directory.path) { kill(pid, SIGTERM) }
        #expect(await program.exitCode(within: .seconds(10)) != nil, "\(command)")
      }
    }
  }
}
