import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Commands in the documents")
  struct ReadmeTests {
    private static let documents = ["README.md", "nginx/README.md", "systemd/README.md"]

    /// The commands that are not run here, by their prefix, each with the reason.
    private static let skippedCommands: [(prefix: String, reason: String)] = [
      ("nginx/demo", "builds, which cannot run beside swift test; the tests of the demo run its options"),
      ("SLUICE_UPSTREAM_URL=", "needs a model server"),
      ("Tests/run", "runs the tests"), ("SLUICE_SOAK=", "runs the tests"),
      ("SLUICE_TEST_LLAMA=", "runs the tests"),
      ("SLUICE_ENV_FILE=", "needs the installed service; Tests/Systemd/service runs it"),
      ("systemd/package", "SystemdTests runs it"), ("sudo ", "changes the machine"), ("sudoedit ", "is interactive"),
      ("swift build", "cannot run beside swift test"),
      ("Tests/bench", "measures for minutes; BenchmarkTests runs its load"),
      ("journalctl", "needs the installed service"),
    ]

    /// The code blocks of `language` in `document`.
    private static func blocks(_ language: String, in document: String) throws -> [String] {
      let text = try String(contentsOfFile: packageRoot + "/" + document, encoding: .utf8)
      return text.matches(of: try Regex("( *)```\(language)\\n((?:.*\\n)*?) *```\\n")).map { match in
        let indent = match.output[1].substring ?? ""
        return (match.output[2].substring ?? "").split(separator: "\n", omittingEmptySubsequences: false)
          .map { $0.hasPrefix(indent) ? $0.dropFirst(indent.count) : $0 }.joined(separator: "\n")
      }
    }

    /// The shell commands of all documents. A command can continue on the next line.
    private static func commands() throws -> [String] {
      try documents.flatMap { try blocks("sh", in: $0) }
        .flatMap { block in
          block.replacingOccurrences(of: "\\\n", with: " ").split(separator: "\n").map(String.init)
        }
    }

    private func bash(_ command: String, _ environment: [String: String] = [:]) async throws -> Program {
      let program = try Program("/bin/bash", ["-c", "cd '\(packageRoot)' && \(command)"], environment: environment)
      _ = await program.exitCode(within: .seconds(60))
      return program
    }

    @Test("Every command is valid and runs as written, except those listed with a reason")
    func commands() async throws {
      let commands = try Self.commands()
      #expect(commands.count > 15, "\(commands)")
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0"])
      let directory = TemporaryDirectory()
      let path = releaseDirectory + ":/usr/sbin:/usr/bin:/bin"
      var ran = 0
      for command in Set(commands) {
        let syntax = try await bash("bash -n -c \"$COMMAND\"", ["COMMAND": command])
        #expect(await syntax.exitCode() == 0, "\(command): \(syntax.errors)")
        // These need root only for their files, which are elsewhere here.
        let withoutRoot = command.hasPrefix("sudo sh -c") || command.hasPrefix("sudo SLUICE_")
        let local = (withoutRoot ? String(command.dropFirst("sudo ".count)) : command)
          .replacingOccurrences(of: "https://example.com", with: servers.url)
          .replacingOccurrences(of: "--token TOKEN", with: "--token \(servers.token)")
          .replacingOccurrences(of: "/var/backups", with: directory.path)
          .replacingOccurrences(of: "Bearer TOKEN", with: "Bearer \(servers.token)")
          .replacingOccurrences(of: "/etc/sluice", with: directory.path)
          .replacingOccurrences(of: "/var/lib/sluice", with: directory.path)
        if Self.skippedCommands.contains(where: { local.hasPrefix($0.prefix) }) { continue }
        _ = directory.file("sluice.env", "SLUICE_AUTH=none\n")
        try FileManager.default.createDirectory(
          atPath: directory.path + "/users/alice", withIntermediateDirectories: true)
        let program = try await bash(local, ["PATH": path])
        #expect(await program.exitCode() == 0, "\(command): \(program.output) \(program.errors)")
        if command.hasPrefix("curl") { #expect(program.output.contains("event: done"), "\(program.output)") }
        ran += 1
      }
      #expect(ran == 7)
      let packages = try await bash("Tests/run --list-build-packages")
      #expect(packages.output.contains("libsimdjson-dev"))
      #expect(
        commands.contains { $0.hasPrefix("sudo apt-get install") && $0.contains("$(Tests/run --list-build-packages)") })
      _ = await servers.stop()
    }

    @Test("The JavaScript examples run in a browser as written")
    func javaScript() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "50ms", "SLUICE_RESUME": "5s"])
      let (files, port) = try ReactFiles.serve()
      let browser = try await Browser()
      let words = (0..<20).map { "w\($0)" }.joined(separator: " ")
      // What each example shows, in the order of the documents.
      let expected = [
        "Hello", "Hello", #"{"id":"a","event":"token","data":{"t":"Hello"}}"#, "HelloAnd again",
        "\(words): \(words)", " sessions", "HelloHello", "Hello",
      ]
      let examples = try ["README.md", "nginx/html/README.md"].flatMap { try Self.blocks("js", in: $0) }
      #expect(examples.count == expected.count)
      for (example, expected) in zip(examples, expected) {
        // A document without the page's Content-Security-Policy, which forbids modules that are no files.
        try await browser.open("\(servers.url)/healthz")
        // The demo has no TLS; a module that is no file has no path to be relative to.
        let code = example.replacingOccurrences(of: "wss://", with: "ws://")
          .replacingOccurrences(of: "from \"/", with: "from \"\(servers.url)/")
        let json = String(decoding: try JSONEncoder().encode(code), as: UTF8.self)
        _ = try await browser.run(
          """
          (() => { window.failure = ''; (async () => {
            window.token = '\(servers.token)';
            window.output = document.body.appendChild(document.createElement('div'));
            const code = \(json);
            console.log = (text) => output.append(text + '\\n');
            if (code.includes('React')) { \(ReactFiles.loading(from: port)) }
            if (code.includes('my-session')) {
              const { chat } = await import('/sluice.js');
              const run = chat('\(words)', { token, sessionId: 'my-session' });
              await new Promise((resolve) => { run.onOpen = resolve; });
            }
            await import(URL.createObjectURL(new Blob([code], { type: 'text/javascript' })));
            if (code.includes('React')) {
              while (!output.querySelector('button')) await new Promise(requestAnimationFrame);
              output.querySelector('button').click();
            }
          })().catch((error) => { failure = String(error); }); })()
          """)
        let shows = await eventually { (try? await browser.run("output.textContent").contains(expected)) == true }
        let (shown, failure) = (try await browser.run("output.textContent"), try await browser.run("failure"))
        #expect(shows && failure.isEmpty, "\(example): \(shown) \(failure)")
      }
      await browser.close()
      files.signal(SIGTERM)
      _ = await files.exitCode()
      _ = await servers.stop()
    }

    @Test("The example for OpenAI's SDK runs as written")
    func sdk() async throws {
      let servers = try await Servers(["SLUICE_ECHO_GAP": "0"])
      let code = try #require(try Self.blocks("python", in: "README.md").first)
        .replacingOccurrences(of: "https://example.com", with: servers.url)
        .replacingOccurrences(of: "TOKEN", with: servers.token)
      let python = try Program(packageRoot + "/.build/python/bin/python", ["-c", code])
      #expect(await python.exitCode(within: .seconds(60)) == 0, "\(python.errors)")
      #expect(python.output == "Hello", "\(python.output)")
      _ = await servers.stop()
    }
  }
}
