import Foundation
import SluiceTesting
import Testing

extension Integration {
  @Suite("Documentation for embedders")
  struct DocumentationTests {
    private static let catalogue = packageRoot + "/Sources/Sluice/Sluice.docc"
    private static let modules = packageRoot + "/.build/debug"

    /// The compiler flags for importing Sluice from the build that contains these tests.
    private static let importing: [String] =
      ["-I", modules + "/Modules"]
      + (["CLazyLibraries", "CLinux", "CSimdJSON"].map { modules + "/\($0).build/module.modulemap" }
      + ["CCurl", "CPCRE2", "CJOSE", "CCrypto", "CSystemd", "CWslay", "CZlib", "CFastCGI"].map {
        packageRoot + "/Sources/\($0)/module.modulemap"
      }).flatMap { ["-Xcc", "-fmodule-map-file=" + $0] }

    private func run(_ tool: String, _ arguments: [String]) async throws -> (code: Int32?, output: String) {
      let program = try Program("/usr/bin/env", [tool] + arguments)
      let code = await program.exitCode(within: .seconds(240))
      return (code, program.output + program.errors)
    }

    @Test("Every public symbol has a comment, and the documentation builds without warnings")
    func builds() async throws {
      let directory = TemporaryDirectory()
      let extracted = try await run(
        "swift",
        ["symbolgraph-extract", "-module-name", "Sluice", "-target", "x86_64-unknown-linux-gnu"] + Self.importing + [
          "-minimum-access-level", "public", "-skip-synthesized-members",
          "-experimental-allowed-reexported-modules=FastCGI,JSON,Upstream", "-output-dir", directory.path,
        ])
      try #require(extracted.code == 0, "\(extracted)")
      let graph = try JSONDecoder().decode(
        Graph.self, from: Data(contentsOf: URL(filePath: directory.path + "/Sluice.symbols.json")))
      let names = graph.symbols.map { $0.pathComponents.joined(separator: ".") }
      #expect(names.contains("Application") && names.contains("Generator") && names.contains("JSON"))
      let bare = graph.symbols.filter { $0.docComment == nil }.map { $0.pathComponents.joined(separator: ".") }
      #expect(bare == [], "without a comment")
      let converted = try await run(
        "docc",
        [
          "convert", Self.catalogue, "--additional-symbol-graph-dir", directory.path, "--fallback-display-name",
          "Sluice",
          "--fallback-bundle-identifier", "sluice", "--output-path", directory.path + "/docs", "--warnings-as-errors",
        ])
      #expect(converted.code == 0 && !converted.output.contains("warning:"), "\(converted)")
    }

    private struct Graph: Decodable {
      struct Symbol: Decodable {
        struct Comment: Decodable {}
        let pathComponents: [String]
        let docComment: Comment?
      }
      let symbols: [Symbol]
    }

    @Test("Code examples in the documentation compile in an embedder's program")
    func code() async throws {
      var files: [String] = []
      let directory = TemporaryDirectory()
      for name in try FileManager.default.contentsOfDirectory(atPath: Self.catalogue).sorted()
      where name.hasSuffix(".md") {
        let text = try String(contentsOfFile: Self.catalogue + "/" + name, encoding: .utf8)
        for (index, part) in text.components(separatedBy: "```swift\n").dropFirst().enumerated() {
          let code = part.components(separatedBy: "```")[0]
          let path = directory.path + "/\(name.dropLast(3))\(index).swift"
          try Self.program(code).write(toFile: path, atomically: true, encoding: .utf8)
          files.append(path)
        }
      }
      #expect(files.count >= 6, "\(files)")
      for file in files {
        let (code, output) = try await run(
          "swiftc",
          ["-typecheck", "-parse-as-library", "-swift-version", "6", "-enable-testing"] + Self.importing
            + Self.testing + [file])
        #expect(code == 0, "\(file): \(output)")
      }
    }

    /// The compiler flags for the toolchain's copy of swift-testing.
    private static let testing: [String] = {
      let path = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":").first {
        FileManager.default.isExecutableFile(atPath: $0 + "/swiftc")
      }
      let root = URL(filePath: String(path ?? "/usr/bin") + "/swiftc").resolvingSymlinksInPath()
        .deletingLastPathComponent().deletingLastPathComponent().path
      return ["-I", root + "/lib/swift/linux/testing", "-plugin-path", root + "/lib/swift/host/plugins/testing"]
    }()

    /// Returns a source file with the code. Statements are wrapped in a function, with the declarations that they need.
    private static func program(_ code: String) -> String {
      if code.contains("@main") || code.contains("import Testing") { return code }
      if code.hasPrefix("struct ") || code.hasPrefix("nonisolated") { return "import Sluice\n\n" + code }
      let application = code.contains("let application") ? "" : "let application = try Application()\n"
      return """
        import Glibc
        import Sluice

        func watchForWork() async throws {}

        func example() async throws {
        \(application)\(code)
        }
        """
    }
  }
}
