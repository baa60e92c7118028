import Foundation
import Testing

extension Integration {
  /// The English of the code, the messages and the documents, as far as a machine can check it.
  @Suite("Language")
  struct LanguageTests {
    private static let root = packageRoot

    /// The files below `directories` with one of the extensions, except this one and generated ones.
    private static func files(in directories: [String], _ extensions: [String]) -> [String] {
      directories.flatMap { directory in
        let all = FileManager.default.enumerator(atPath: root + "/" + directory)?.compactMap { $0 as? String } ?? []
        return all.filter { name in
          extensions.contains(String(name.split(separator: ".").last ?? "")) && !name.hasSuffix("LanguageTests.swift")
        }.sorted().map { directory + "/" + $0 }
      }
    }

    private static let sources = files(in: ["Sources", "Tests"], ["swift", "h", "cpp", "c"])
    private static let documents =
      files(in: ["Sources", "nginx", "systemd"], ["md", "conf", "yaml", "js", "service", "socket"])
      + ["README.md", "nginx/demo", "nginx/install-page", "systemd/install", "Tests/run"]

    private static func text(_ file: String) throws -> String {
      try String(contentsOfFile: root + "/" + file, encoding: .utf8)
    }

    @Test("Documentation comments start with the thing that they describe")
    func summaries() throws {
      var found: [String] = []
      for file in Self.sources {
        var isInComment = false
        for (index, line) in try Self.text(file).split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
          let line = line.drop { $0 == " " }
          if line.hasPrefix("///"), !isInComment,
            line.contains(#/^/// (What|Who|Whom|Where|When|How|Since|All that|Those|Not|Asked|Held|Of) /#)
          {
            found.append("\(file):\(index + 1): \(line)")
          }
          isInComment = line.hasPrefix("///")
        }
      }
      #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test("Comments, test names and documents contain no unidiomatic phrases")
    func phrases() throws {
      let unwanted = [
        #"\b([Nn]obody|[Ss]omebody|[Aa]nybody|[Ww]hoever|[Ww]homever)\b"#, #"\banew\b"#, #"\bin one piece\b"#,
        #"\b(is|are|was) told\b"#,
        #"\ba (line|turn|token|directory|file|chunk|minute|stream) a (line|turn|token|user|stream)\b"#,
      ]
      let pattern = try Regex(unwanted.joined(separator: "|"))
      var found: [String] = []
      for file in Self.sources + Self.documents {
        for (index, line) in try Self.text(file).split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
          let isComment = line.contains("//") || line.contains("@Test(") || line.contains("@Suite(")
          guard isComment || !file.hasSuffix(".swift") else { continue }
          if line.contains(pattern) { found.append("\(file):\(index + 1): \(line)") }
        }
      }
      #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    @Test("Names of tests are sentences and names of suites are nouns")
    func testNames() throws {
      var found: [String] = []
      for file in Self.sources where file.hasPrefix("Tests/") {
        for match in try Self.text(file).matches(of: #/@(Test|Suite)\(\s*"((?:[^"\\]|\\.)*)"/#) {
          let name = match.output.2
          // A sentence may begin with a name that is written in lower case.
          let startsWell =
            name.first?.isLowercase != true || name.contains(#/^(nginx|sluice|curl|libcurl|libfcgi|systemd) /#)
          if !startsWell || name.hasSuffix(".") || name.hasSuffix("?") { found.append("\(file): \(name)") }
        }
      }
      #expect(found.isEmpty, "\(found.joined(separator: "\n"))")
    }

    /// A message that a client, an administrator or a developer can be shown.
    private struct Message {
      enum Kind: String { case client, log, start, setting, help, metric, contract }
      let kind: Kind
      let file: String
      let text: String
    }

    /// All messages, found in the sources by the calls that make them.
    private static func messages() throws -> [Message] {
      // A string literal, in which an interpolation can contain further ones.
      let literal = #""((?:[^"\\]|\\\((?:[^()"]|"[^"]*"|\((?:[^()"]|"[^"]*"|\([^()]*\))*\))*\)|\\.)*)""#
      let patterns: [(Message.Kind, String)] = [
        (.client, #"(?:Failure|GeneratorError)\(\s*\.\w+,\s*"# + literal), (.client, #"writingStore\("# + literal),
        (.client, #"timeOut\("# + literal), (.log, #"log\.(?:error|warning|info|debug)\(\s*"# + literal),
        (.start, #"StartError\(message:\s*"# + literal), (.start, #"printError\("# + literal),
        (.setting, #"(?:SettingError|PatternError|LineIssue|APIKeyError|Issue)\([^"\n]*reason:\s*"# + literal),
        (.setting, #"check\(\s*"[A-Z_]+",[^"\n]*(?:\n\s*)?"# + literal),
        (.setting, #"issues(?:\.append\(|\s*=\s*\[)"# + literal),
        (.help, #"(?:global|perLocation)\("[A-Z_]+",\s*"# + literal), (.help, #"\n    \(\w+, "# + literal),
        (.metric, #"text\.add\(\s*"\w+",\s*(?:"\w+",\s*)?"# + literal),
      ]
      var all: [Message] = []
      for file in sources
      where file.hasPrefix("Sources/") && file.hasSuffix(".swift") && !file.contains("SluiceTesting") {
        let text = try text(file)
        for (kind, pattern) in patterns {
          for match in text.matches(of: try Regex(pattern)) {
            all.append(Message(kind: kind, file: file, text: String(match.output[1].substring ?? "")))
          }
        }
      }
      for match in try text("Sources/Sluice/Resources/openapi.yaml").matches(
        of: #/(?:summary|description): ("[^"\n]*"|[^">|\n{}][^>|\n{}]*)/#)
      {
        let text = match.output.1.split(separator: ", schema:")[0].split(separator: ", content:")[0]
        all.append(
          Message(
            kind: .contract, file: "openapi.yaml",
            text: text.trimmingCharacters(in: CharacterSet(charactersIn: "\" "))))
      }
      return all
    }

    @Test("All messages are listed in one file, and each follows the rules that a machine can check")
    func messageRules() throws {
      let messages = try Self.messages()
      let list = messages.map { "\($0.kind)\t\($0.text)\t\($0.file)" }.sorted().joined(separator: "\n")
      try? (list + "\n").write(toFile: Self.root + "/.build/messages.txt", atomically: true, encoding: .utf8)
      for (kind, count) in [
        (Message.Kind.client, 60), (.log, 15), (.start, 5), (.setting, 25), (.help, 30), (.metric, 8), (.contract, 60),
      ] {
        let found = messages.filter { $0.kind == kind }.count
        #expect(found >= count, "\(found) of kind \(kind)")
      }
      for message in messages {
        let (kind, text) = (message.kind, message.text)
        #expect(!text.contains("?") || text.contains("/messages/?"), "a question: \(text)")
        #expect(
          !text.contains(
            #/\b(nobody|somebody|whoever|anew|apart by|in one piece|mistake|a issue|the model's server|may)\b/#),
          "an unwanted phrase: \(text)")
        switch kind {
        case .client, .metric, .contract:
          // The message must be a sentence, unless it begins with a field name.
          #expect(text.first?.isLowercase != true || text.hasPrefix("`"), "not a sentence: \(text)")
          #expect(text.hasSuffix(".") || text.hasSuffix("\\") || text.contains("disabled for"), "no full stop: \(text)")
        case .log, .start, .setting, .help:
          #expect(!text.hasSuffix("."), "a full stop behind a prefix: \(text)")
          #expect(
            text.first?.isUppercase != true || text.contains(#/^(SIGHUP|SLUICE|JWT|JWK|API|HTTP)/#)
              || text.contains(#/^[A-Z]\w+:/#),
            "an upper-case letter behind a prefix: \(text)")
        }
      }
    }
  }
}
