import Foundation
import SluiceTesting
import Testing

extension Integration {
  /// Scripts that run on a booted systemd: `Tests/Systemd/run`.
  @Suite("A booted systemd")
  struct SystemdTests {
    /// Runs a script, unless this machine cannot start a container, which is printed.
    private func run(_ script: String) async throws {
      let program = try Program(packageRoot + "/Tests/Systemd/run", [script])
      let code = await program.exitCode(within: .seconds(300))
      if code == 77 { return print("SKIPPED: \(script): \(program.errors)") }
      #expect(code == 0, "\(program.output)\(program.errors)")
    }

    @Test("The package is installed, upgraded ten times without a failure, removed and purged")
    func package() async throws { try await run("package") }

    @Test("The service reloads, refuses mistakes, logs fields, runs several processes, and is uninstalled")
    func service() async throws { try await run("service") }

    @Test("The package has no errors, and its manual page is clean")
    func lint() async throws {
      let directory = TemporaryDirectory()
      let build = try Program(packageRoot + "/systemd/package", [directory.path])
      #expect(await build.exitCode(within: .seconds(120)) == 0, "\(build.errors)")
      let package = build.output.trimmingCharacters(in: .whitespacesAndNewlines)
      let lintian = try Program("/usr/bin/lintian", ["--allow-root", package])
      #expect(await lintian.exitCode(within: .seconds(120)) == 0, "\(lintian.output)\(lintian.errors)")
      #expect(!lintian.output.contains("E: "), "\(lintian.output)")
      let manual = try Program("/usr/bin/mandoc", ["-Tlint", "-Wstyle", packageRoot + "/systemd/sluice.8"])
      _ = await manual.exitCode()
      #expect(manual.output.isEmpty, "\(manual.output)")
    }

    @Test("The manual page names every command and option of the help")
    func manual() async throws {
      let help = try Program(releaseDirectory + "/sluice", ["--help"])
      _ = await help.exitCode()
      let page = try String(contentsOfFile: packageRoot + "/systemd/sluice.8", encoding: .utf8)
      let usage = help.output.components(separatedBy: "Settings are").first ?? ""
      let words = Set(usage.matches(of: /--[a-z-]+|sluice ([a-z]+)/).map { String($0.1 ?? $0.0) })
      #expect(words.count > 10)
      for word in words where word != "sluice" {
        let name = word.hasPrefix("--") ? "Fl -" + word.dropFirst(2) : word
        #expect(page.contains(name), "\(word)")
      }
    }
  }
}
