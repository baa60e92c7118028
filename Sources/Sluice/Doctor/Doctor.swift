import EventStream
import FoundationEssentials
import Glibc
import JSON
import Upstream

/// The diagnosis of an installation through its web server: `sluice doctor`. Blocks for about half a minute.
package struct Doctor {
  private let url: String
  private let headers: [String]
  private let settings: Environment
  package private(set) var findings: [Finding] = []

  /// The silence that the stream is tested with: longer than the default of `SLUICE_HEARTBEAT`, so that only heartbeats
  /// keep proxies from closing the connection.
  private static let silence = 20

  /// - Parameters:
  ///   - url: the site, such as `https://chat.example.com`.
  ///   - token: a user's token; nil if the site needs none.
  ///   - environment: the service's settings, to check its sockets on the same machine.
  /// - Throws: ``StartError`` when a file of settings cannot be read.
  package init(_ url: String, token: String?, environment: [String: String]) throws(StartError) {
    self.url = url.hasSuffix("/") ? String(url.dropLast()) : url
    headers = token.map { ["Authorization: Bearer \($0)"] } ?? []
    settings = try Environment(checking: environment)
  }

  /// Runs all checks that make sense after the earlier ones.
  ///
  /// - Parameter onProgress: called with what is checked next.
  package mutating func run(onProgress: (String) -> Void) {
    onProgress("the web server and Sluice at \(url)")
    checkSockets()
    guard checkHealth() else { return }
    onProgress("the token, the model server and the store")
    guard checkInstallation() else { return }
    onProgress("compression")
    checkCompression()
    onProgress("a stream with \(Self.silence) s of silence")
    checkStream()
  }

  private mutating func add(_ code: Finding.Code, _ message: String, fix: String) {
    findings.append(Finding(code, message, fix: fix))
  }

  // MARK: Checks

  /// Checks that the web server can connect to the sockets, if they are on this machine.
  private mutating func checkSockets() {
    for path in socketPaths() {
      var status = stat()
      guard unsafe stat(path, &status) == 0 else {
        // A directory that only others can read tells nothing about the web server.
        if errno == EACCES { continue }
        let reason = unsafe String(cString: strerror(errno))
        add(
          .socketPermissions, "The socket \(path) cannot be used: \(reason).",
          fix: "Start it (systemctl enable --now sluice.socket), or correct SLUICE_LISTEN.")
        continue
      }
      // connect(2) needs write permission.
      let isWritable =
        status.st_mode & S_IWOTH != 0 || (status.st_mode & S_IWGRP != 0 && Self.webServerGroups.contains(status.st_gid))
        || (status.st_mode & S_IWUSR != 0 && Self.webServerUsers.contains(status.st_uid))
      if status.st_mode & S_IFMT != S_IFSOCK || !isWritable {
        add(
          .socketPermissions, "nginx (group www-data) cannot connect to the socket \(path).",
          fix: "Set SocketGroup=www-data and SocketMode=0660 in sluice.socket, or the process's umask.")
      }
    }
  }

  /// Returns the sockets of the service's settings, or else those that systemd has created; empty if this is another
  /// machine.
  private func socketPaths() -> [String] {
    if let text = settings["SLUICE_LISTEN"], !text.isEmpty {
      return text.hasPrefix("unix:") ? [String(text.dropFirst(5))] : []
    }
    guard settings[Environment.fileVariable] != nil else { return [] }
    let directory = "/run/sluice"
    let names = ((try? fileNames(in: directory)) ?? []).filter { $0.hasSuffix(".sock") && !$0.hasPrefix("websocket") }
    return names.isEmpty ? [directory + "/sluice.sock"] : names.map { "\(directory)/\($0)" }
  }

  /// The names that distributions run nginx under.
  private static let webServerNames = ["www-data", "nginx", "http"]
  private static let webServerGroups = webServerNames.compactMap { (name: String) -> gid_t? in
    unsafe getgrnam(name).map { unsafe $0.pointee.gr_gid }
  }
  private static let webServerUsers = webServerNames.compactMap { (name: String) -> uid_t? in
    unsafe getpwnam(name).map { unsafe $0.pointee.pw_uid }
  }

  /// Returns whether Sluice responds.
  private mutating func checkHealth() -> Bool {
    let health = HTTPProbe(url + "/healthz", headers: headers, limit: .seconds(15))
    if health.status == 0 {
      add(
        .unreachable, "\(url) does not respond: \(health.failure ?? "no response").",
        fix: "Check the host name, the port, the certificate and whether the web server runs (systemctl status nginx).")
      return false
    }
    if let difference = health.clockDifference, abs(difference) > 30 {
      add(
        .clockSkew,
        "The server's clock is \(abs(difference)) s \(difference > 0 ? "ahead of" : "behind") this machine's.",
        fix: "Synchronise the clocks (timedatectl set-ntp true): tokens with an expiry depend on them.")
    }
    let json = try? JSON(parsing: health.body)
    if [502, 504].contains(health.status) || (health.status == 503 && json == nil) {
      add(
        .unreachable, "The web server responds, but does not reach Sluice (status \(health.status)).",
        fix: "Start Sluice (systemctl status sluice.socket sluice), and compare fastcgi_pass with its socket.")
      return false
    }
    if json?["error"]?["code"]?.string == "shutting_down" {
      add(.unreachable, "Sluice is shutting down.", fix: "Try again when it has started (systemctl status sluice).")
      return false
    }
    if (300..<400).contains(health.status) {
      add(
        .notSluice, "\(url) redirects to \(health.fields["location"] ?? "another address").",
        fix: "Run sluice doctor with that address.")
      return false
    }
    guard health.status == 200, json?["status"]?.string == "ok" else {
      add(
        .notSluice, "\(url)/healthz is not answered by Sluice (status \(health.status)).",
        fix:
          "Include nginx/sluice.conf in this host's server block; a location ^~ of the site must not take its paths."
      )
      return false
    }
    return true
  }

  /// Reads the installation's own checks. Returns whether the token is accepted.
  private mutating func checkInstallation() -> Bool {
    let own = HTTPProbe(url + "/api/doctor", headers: headers, limit: .seconds(90))
    let json = try? JSON(parsing: own.body)
    if own.status == 401 || own.status == 403 {
      add(
        .unauthorized, headers.isEmpty ? "Sluice asks for a token." : "Sluice refuses the token.",
        fix: "Pass a valid one with --token; \"sluice token USER\" creates it in the tokens file of the service.")
      return false
    }
    if own.status == 0 {
      add(
        .upstreamUnreachable, "The model server, or the store, was silent for \(own.duration.inMilliseconds / 1000) s.",
        fix: "See the log (journalctl -u sluice), and the model server.")
      return true
    }
    guard own.status == 200, let list = json?["findings"]?.array else {
      addRefusal(own, path: "/api/doctor")
      return false
    }
    findings += list.compactMap(Finding.init(json:))
    return true
  }

  /// Adds the finding for a request that was not answered as expected.
  private mutating func addRefusal(_ probe: HTTPProbe, path: String) {
    let error = (try? JSON(parsing: probe.body))?["error"]
    if let code = error?["code"]?.string, code != "not_found", let message = error?["message"]?.string {
      return add(
        .unreachable, "Sluice refused the examination (\(code)): \(message)",
        fix: "Try again when that is over, or with the token of another user.")
    }
    add(
      .notSluice, "\(url)\(path) failed with status \(probe.status).",
      fix: "Include nginx/sluice.conf of this version, whose locations cover /api/, and see the log of Sluice.")
  }

  private mutating func checkCompression() {
    let coded = HTTPProbe(
      url + "/api/doctor/stream?seconds=1", headers: headers + ["Accept-Encoding: gzip, br, zstd, deflate"],
      limit: .seconds(30))
    if let coding = coded.fields["content-encoding"], coding != "identity" {
      add(
        .compressed, "The stream is compressed (\(coding)), which delays words.",
        fix: "Turn it off for these locations: gzip off; and brotli off; in nginx, and likewise in a CDN.")
    }
  }

  private mutating func checkStream() {
    let seconds = 3
    let stream = HTTPProbe(
      url + "/api/doctor/stream?seconds=\(seconds)&silence=\(Self.silence)", headers: headers,
      limit: .seconds(seconds + Self.silence + 40))
    guard stream.status == 200 else { return addRefusal(stream, path: "/api/doctor/stream") }
    // When each record has arrived.
    var parser = EventStreamParser()
    var words: [Duration] = []
    var terminal: String?
    var error: JSON?
    for part in stream.parts {
      try? parser.feed(part.bytes.span) { type, data, _ in
        let type = String(decodingUTF8: type)
        if type.isEmpty || type == "token" { words.append(part.at) }
        if ["done", "error", "cancelled"].contains(type) { terminal = type }
        if type == "error" { error = try? JSON(parsing: Array(String(decodingUTF8: data).utf8)) }
      }
    }
    let expected: Duration = .milliseconds(250) * (words.count - 1)
    if words.count > seconds, let first = words.first, let last = words.last, last - first < expected / 2 {
      add(
        .buffered,
        "The words of \(seconds) s arrive within \((last - first).inMilliseconds) ms: they are buffered.",
        fix:
          "Set fastcgi_buffering off; in nginx, and proxy_buffering off; in an nginx in front of it."
      )
    }
    if terminal == "done" { return }
    if terminal != nil {
      let code = error?["code"]?.string ?? "it was stopped"
      return add(
        code == "upstream_timeout" ? .readTimeout : .unreachable,
        "Sluice itself ended the stream after \(stream.duration.inMilliseconds / 1000) s: \(code).",
        fix: "For upstream_timeout, raise SLUICE_STREAM_TIMEOUT; otherwise see the log, and try again.")
    }
    if words.count == 4 * seconds {
      add(
        .readTimeout, "The stream was cut after \(stream.duration.inMilliseconds / 1000) s, in its silence.",
        fix:
          "Set fastcgi_read_timeout, and time limits of proxies in front of nginx, longer than SLUICE_HEARTBEAT."
      )
    } else {
      add(
        .noTerminalRecord,
        "The stream ended after \(words.count) of \(4 * seconds) words, without its terminal record.",
        fix: "Look for a restart or a crash in the log of Sluice, and for time limits of proxies in front of nginx.")
    }
  }
}

extension Duration {
  fileprivate var inMilliseconds: Int {
    Int(components.seconds * 1000) + Int(components.attoseconds / 1_000_000_000_000_000)
  }
}
