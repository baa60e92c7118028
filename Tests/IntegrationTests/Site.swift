import EventLoop
import Foundation
import SluiceTesting
import Testing

/// The Sluice program without a web server; the test is its FastCGI client.
final class Sluice: Sendable {
  let program: Program
  let socket: String
  let directory: String

  /// - Parameter executable: the name of a product, or the path of a program.
  init(_ environment: [String: String] = [:], executable: String = "sluice", arguments: [String] = []) async throws {
    directory = FileManager.default.temporaryDirectory.path + "/sluice-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    socket = directory + "/s"
    program = try Program(
      executable.contains("/") ? executable : releaseDirectory + "/" + executable, arguments,
      environment: [
        "SLUICE_LISTEN": "unix:\(socket)", "SLUICE_WEBSOCKET_LISTEN": "unix:\(directory)/w",
        "SLUICE_STATE": directory + "/state", "SLUICE_AUTH": "none",
        "SLUICE_ECHO_GAP": "10ms",
      ].merging(environment) { $1 })
    let program = program
    let path = socket
    let isUp = await eventually { (try? FastCGIClient(path: path)) != nil || !program.isRunning }
    try #require(isUp && program.isRunning, "\(program.errors)")
  }

  func chat(_ message: String, session: String? = nil) throws -> FastCGIClient {
    try Self.chat(message, session: session, at: socket)
  }

  /// Sends a chat request to the program that listens on `socket`, and returns the client that can read the response.
  static func chat(
    _ message: String, session: String? = nil, key: String? = nil, at socket: String
  ) throws -> FastCGIClient {
    let client = try FastCGIClient(path: socket)
    let body = Array("{\"message\":\"\(message)\"\(session.map { ",\"sessionId\":\"\($0)\"" } ?? "")}".utf8)
    client.send(
      FastCGIClient.request(
        [
          ("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/api/chat"), ("CONTENT_TYPE", "application/json"),
          ("CONTENT_LENGTH", "\(body.count)"),
        ] + (key.map { [("HTTP_IDEMPOTENCY_KEY", $0)] } ?? []),
        body: body))
    return client
  }

  /// The number of open file descriptors; -1 if it cannot be read.
  var descriptors: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(program.pid)/fd").count) ?? -1 }

  /// The resident memory in KiB; -1 if it cannot be read.
  var memory: Int {
    let text = (try? String(contentsOfFile: "/proc/\(program.pid)/status", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").first { $0.hasPrefix("VmRSS:") }.flatMap { Int($0.filter(\.isNumber)) } ?? -1
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }
}

/// nginx with the shipped configuration and additional lines from the test, in front of Sluice.
final class Site: Sendable {
  let url: String
  let sluice: Sluice
  let nginx: Program

  /// Starts Sluice and nginx. In `location` and `server`, DIRECTORY stands for the site's temporary directory.
  ///
  /// - Parameters:
  ///   - location: lines for the location in sluice.conf.
  ///   - server: lines for the enclosing server block.
  ///   - files: files to create in the temporary directory, as names and contents.
  ///   - program: the name of a product, or the path of a program.
  ///   - replacing: further replacements in the shipped configuration. SOCKET stands for Sluice's socket.
  ///   - http: lines for the http block, with SOCKET and DIRECTORY too.
  init(
    _ environment: [String: String] = [:], location: String = "", server: String = "", files: [String: String] = [:],
    program: String = "sluice", replacing: [(String, String)] = [], http: String = ""
  ) async throws {
    sluice = try await Sluice(environment, executable: program)
    let directory = sluice.directory
    for (name, text) in files { try text.write(toFile: "\(directory)/\(name)", atomically: true, encoding: .utf8) }
    var shipped = try String(contentsOfFile: packageRoot + "/nginx/sluice.conf", encoding: .utf8)
      .replacingOccurrences(of: "unix:/run/sluice/sluice.sock", with: "unix:\(sluice.socket)")
      .replacingOccurrences(of: "unix:/run/sluice/websocket.sock", with: "unix:\(directory)/w")
      .replacingOccurrences(
        of: "    # The socket of Sluice, as systemd/sluice.socket",
        with: location + "\n    # The socket of Sluice, as systemd/sluice.socket")
    let path = sluice.socket
    for (old, new) in replacing {
      shipped = shipped.replacingOccurrences(of: old.replacingOccurrences(of: "SOCKET", with: path), with: new)
    }
    let port = try Loopback.freePort()
    url = "http://127.0.0.1:\(port)"
    let configuration = """
      daemon off; pid \(directory)/pid; error_log stderr; events {}
      \(getuid() == 0 ? "user root;" : "")
      http {
        access_log off;
        \(http.replacingOccurrences(of: "SOCKET", with: path).replacingOccurrences(of: "DIRECTORY", with: directory))
        client_body_temp_path \(directory)/a; proxy_temp_path \(directory)/b; fastcgi_temp_path \(directory)/c;
        uwsgi_temp_path \(directory)/d; scgi_temp_path \(directory)/e;
        server {
          listen 127.0.0.1:\(port);
          \(server.replacingOccurrences(of: "DIRECTORY", with: directory).replacingOccurrences(of: "SOCKET", with: path))
          \(shipped.replacingOccurrences(of: "DIRECTORY", with: directory))
        }
      }
      """
    try configuration.write(toFile: directory + "/nginx.conf", atomically: true, encoding: .utf8)
    nginx = try Program("/usr/sbin/nginx", ["-p", directory, "-c", directory + "/nginx.conf", "-e", "stderr"])
    let nginx = nginx
    let isUp = await eventually { FileManager.default.fileExists(atPath: directory + "/pid") || !nginx.isRunning }
    try #require(isUp && nginx.isRunning, "\(nginx.errors)")
  }

  /// Returns the response to a request, which is a POST of JSON if there is a body.
  func request(_ path: String, _ json: String? = nil, _ more: [String] = []) async throws -> String {
    let body = json.map { ["-H", "Content-Type: application/json", "-d", $0] } ?? []
    let curl = try Program("/usr/bin/curl", ["-sSN", "-i", "--max-time", "60"] + body + more + [url + path])
    _ = await curl.exitCode(within: .seconds(60))
    return curl.output
  }

  deinit {
    // A killed nginx would leave its worker behind.
    nginx.signal(SIGTERM)
    let end = ContinuousClock.now + .seconds(2)
    while nginx.isRunning, ContinuousClock.now < end { usleep(2000) }
  }

  func stop() async {
    nginx.signal(SIGTERM)
    sluice.program.signal(SIGTERM)
    _ = await nginx.exitCode()
    _ = await sluice.program.exitCode()
  }
}
