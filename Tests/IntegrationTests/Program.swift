import EventLoop
import Foundation
import SluiceTesting
import Synchronization
import Testing

/// The root directory of the package.
let packageRoot = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .deletingLastPathComponent().path

/// The directory of release builds, so that the tests run the same programs as an administrator.
let releaseDirectory = packageRoot + "/.build/release"

/// The integration tests, serialized: two cores are few for a web server, its backend and its clients.
@Suite("Integration", .serialized)
enum Integration {}

/// A child process of a test. Its output is recorded with the time of each read.
final class Program: Sendable {
  struct Chunk: Sendable {
    let at: ContinuousClock.Instant
    let bytes: Data
  }

  private struct State {
    var output: [Chunk] = []
    var errors = Data()
    var openPipes = 2
    var exitCode: Int32?
  }

  private let state = Mutex(State())
  private let input: Mutex<Int32>
  let pid: Int32

  /// Starts a program without Foundation's `Process`, which considers it running for as long as another program that
  /// was started at the same time.
  ///
  /// - Parameter environment: added to a minimal environment, which inherits none of the caller's settings.
  init(
    _ path: String, _ arguments: [String] = [], environment: [String: String] = [:], input text: String? = nil
  ) throws {
    let plain = ProcessInfo.processInfo.environment.filter { ["PATH", "HOME", "TMPDIR", "LANG"].contains($0.key) }
    let variables = plain.merging(["no_proxy": "*"]) { $1 }.merging(environment) { $1 }
    var pipes: [[Int32]] = []
    for _ in 0..<3 {
      var ends: [Int32] = [0, 0]
      guard unsafe pipe(&ends) == 0 else { throw SystemError("make a pipe") }
      for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
      pipes.append(ends)
    }
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_adddup2(&actions, pipes[0][0], 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, pipes[1][1], 1)
    unsafe posix_spawn_file_actions_adddup2(&actions, pipes[2][1], 2)
    // The program starts with an empty signal mask, because other tests block signals.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var none = sigset_t()
    unsafe sigemptyset(&none)
    unsafe posix_spawnattr_setsigmask(&attributes, &none)
    unsafe posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
    var argv = unsafe ([path] + arguments).map { unsafe strdup($0) } + [nil]
    var envp = unsafe variables.map { unsafe strdup("\($0.key)=\($0.value)") } + [nil]
    defer { for index in 0..<(unsafe argv.count) { unsafe free(argv[index]) } }
    var pid: pid_t = 0
    let result = unsafe posix_spawn(&pid, path, &actions, &attributes, &argv, &envp)
    close(pipes[0][0])
    close(pipes[1][1])
    close(pipes[2][1])
    guard result == 0 else { throw SystemError("start \(path)", code: result) }
    self.pid = pid
    self.input = Mutex(pipes[0][1])
    let child = pid
    try collect(pipes[1][0]) { state, bytes in state.output.append(Chunk(at: .now, bytes: bytes)) }
    try collect(pipes[2][0]) { state, bytes in state.errors.append(bytes) }
    try JoinableThread(name: "wait") { [weak self] in
      var status: Int32 = 0
      while unsafe waitpid(child, &status, 0) < 0, errno == EINTR {}
      let code = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + (status & 0x7F)
      self?.state.withLock { $0.exitCode = code }
    }.detach()
    if let text {
      var bytes = Array(text.utf8)[...]
      while !bytes.isEmpty {
        let count = unsafe bytes.withUnsafeBytes { unsafe write(pipes[0][1], $0.baseAddress, $0.count) }
        guard count > 0 else { break }
        bytes = bytes.dropFirst(count)
      }
      closeInput()
    }
  }

  private func collect(_ number: Int32, _ take: @escaping @Sendable (inout State, Data) -> Void) throws {
    try JoinableThread(name: "collect") { [weak self] in
      defer { close(number) }
      var buffer = [UInt8](repeating: 0, count: 16 * 1024)
      while true {
        let count = unsafe read(number, &buffer, buffer.count)
        if count < 0, errno == EINTR { continue }
        guard let self else { return }
        guard count > 0 else { return state.withLock { $0.openPipes -= 1 } }
        state.withLock { take(&$0, Data(buffer.prefix(count))) }
      }
    }.detach()
  }

  var chunks: [Chunk] { state.withLock { $0.output } }
  var output: String { String(decoding: chunks.reduce(Data()) { $0 + $1.bytes }, as: UTF8.self) }
  var errors: String { state.withLock { String(decoding: $0.errors, as: UTF8.self) } }
  var isRunning: Bool { state.withLock { $0.exitCode == nil } }

  func closeInput() {
    input.withLock {
      if $0 >= 0 { close($0) }
      $0 = -1
    }
  }

  func signal(_ number: Int32) { if isRunning { kill(pid, number) } }

  /// Waits until the program has exited and its output is complete, and returns its exit code (128 + N after signal N);
  /// nil if it is still running after `limit`.
  func exitCode(within limit: Duration = .seconds(30)) async -> Int32? {
    _ = await eventually(within: limit) { state.withLock { $0.exitCode != nil && $0.openPipes == 0 } }
    return state.withLock { $0.exitCode }
  }

  /// Returns the log entries whose message is `message`.
  func log(_ message: String) -> [[String: Any]] {
    errors.split(separator: "\n").compactMap {
      guard let object = try? JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any],
        object["message"] as? String == message
      else { return nil }
      return object
    }
  }

  deinit {
    closeInput()
    signal(SIGKILL)
  }
}

/// nginx and Sluice, started by `nginx/demo` with the shipped configuration.
final class Servers: Sendable {
  let url: String
  let token: String
  let pid: Int32
  let nginxPID: Int32
  let state: String
  let demo: Program

  init(_ environment: [String: String] = [:], state: String? = nil) async throws {
    let port = try Loopback.freePort()
    demo = try Program(
      packageRoot + "/nginx/demo",
      ["--no-build", "--port", "\(port)"] + (state.map { ["--state", $0] } ?? [])
        + ["--", "sh", "-c", "echo $SLUICE_URL $SLUICE_TOKEN $SLUICE_PID $SLUICE_STATE $SLUICE_NGINX_PID; exec cat"],
      environment: environment)
    let demo = demo
    let isUp = await eventually(within: .seconds(60)) { demo.output.contains("\n") || !demo.isRunning }
    let words = demo.output.split(whereSeparator: \.isWhitespace).map(String.init)
    try #require(isUp && words.count == 5, "\(demo.errors)")
    (url, token, self.state) = (words[0], words[1], words[3])
    pid = try #require(Int32(words[2]))
    nginxPID = try #require(Int32(words[4]))
  }

  /// Cuts all connections through nginx by killing its worker, which nginx replaces.
  func cutConnections() throws {
    let children = try String(contentsOfFile: "/proc/\(nginxPID)/task/\(nginxPID)/children", encoding: .utf8)
    for worker in children.split(separator: " ").compactMap({ Int32($0) }) { kill(worker, SIGKILL) }
  }

  /// The number of open file descriptors of Sluice; -1 if it cannot be read.
  var descriptors: Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").count) ?? -1 }

  /// Returns the value of a metric; nil if there is none.
  func metric(_ name: String) async throws -> Int? {
    let line = try await get("/metrics").body.split(separator: "\n").first { $0.hasPrefix(name + " ") }
    return line.flatMap { Int($0.dropFirst(name.count + 1)) }
  }

  /// Starts curl(1) with the demo token or another; an empty `token` sends none.
  func curl(_ path: String, _ arguments: [String] = [], token: String? = nil) throws -> Program {
    try Program(
      "/usr/bin/curl",
      ["-sSN", "-i", "--max-time", "60"]
        + (token == "" ? [] : ["-H", "Authorization: Bearer \(token ?? self.token)"]) + arguments + [url + path])
  }

  /// Starts a chat request.
  func chat(_ message: String, more: String = "", token: String? = nil) throws -> Program {
    try curl(
      "/api/chat", ["-H", "Content-Type: application/json", "-d", "{\"message\":\"\(message)\"\(more)}"], token: token)
  }

  /// Waits for curl to exit and returns its complete output.
  func output(of curl: Program) async -> String {
    _ = await curl.exitCode(within: .seconds(60))
    return curl.output
  }

  var storedFiles: [String] {
    (FileManager.default.enumerator(atPath: state)?.compactMap { $0 as? String } ?? []).filter { $0.hasSuffix("l") }
  }

  var storedLines: [String] {
    storedFiles.flatMap {
      (try? String(contentsOfFile: state + "/" + $0, encoding: .utf8))?.split(separator: "\n").map(String.init) ?? []
    }
  }

  /// Returns the stream outcomes in the log, after waiting for at least `count`.
  func outcomes(_ count: Int) async -> [String] {
    _ = await eventually { demo.log("stream ended").count >= count }
    return demo.log("stream ended").compactMap { $0["outcome"] as? String }
  }

  /// Stops both servers, waits until they have exited, and returns the exit code of the demo.
  func stop() async -> Int32? {
    demo.closeInput()
    return await demo.exitCode()
  }
}
