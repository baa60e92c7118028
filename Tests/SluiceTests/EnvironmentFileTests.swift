import Glibc
import SluiceTesting
import Testing

@testable import Sluice

@Suite("Environment file")
struct EnvironmentFileTests {
  private let directory = TemporaryDirectory()

  private func parse(_ text: String) -> EnvironmentFile { EnvironmentFile(parsing: Array(text.utf8)) }

  @Test("Values are read as systemd reads them")
  func values() {
    let rows: [(text: String, value: String?)] = [
      ("A=b", "b"), ("A=", ""), (" A = b c \t\n", "b c"), ("A=b\r\n", "b"), ("A=a\\ b", "a b"), ("A=a\\\nb", "ab"),
      ("A='b c'", "b c"), ("A=\"b c\"", "b c"), ("A='a\\b'", "a\\b"), ("A=\"a\\\"b\\n\"", "a\"b\\n"),
      ("A=\"a\"'b'", "ab"), ("A=\"a\nb\"", "a\nb"), ("A=\"a\\\nb\"", "ab"), ("A=it's", "it's"), ("A=b=c", "b=c"),
      ("A=b # c", "b # c"), ("; c\n# c\nA=b", "b"), ("A=b\nA=c", "c"), ("A=é", "é"), ("A=b\\", "b"),
      ("A=b  \\ ", "b   "),
      ("# A=b\\\n", nil), ("", nil),
    ]
    for (text, value) in rows {
      let file = parse(text)
      #expect(file.assignments.last?.value == value && file.issues.isEmpty, "\(text): \(file)")
    }
  }

  @Test("A line that is no assignment is an issue with its number, and the other lines are read")
  func issues() {
    let rows: [(line: String, reason: String)] = [
      ("export A=b", "A must stand without \"export\""), ("A b", "must be NAME=value"), ("=b", "must be NAME=value"),
      ("1A=b", "must be NAME=value"), ("A B=c", "must be NAME=value"), ("A-B=c", "must be NAME=value"),
      ("A=\"b\" # c", "has a comment behind its value"), ("export A=\"b\" # c", "without \"export\""),
    ]
    for (line, reason) in rows {
      let file = parse("# first\nX=1\n\n\(line)\nY=2")
      #expect(
        file.assignments.map(\.name) == ["X", "Y"] && file.assignments.map(\.line) == [2, 5], "\(line): \(file)")
      #expect(file.issues.first?.line == 4 && file.issues.first?.reason.contains(reason) == true, "\(line): \(file)")
    }
    #expect(parse("OPENAI_API_KEY: sk-secret").issues.first?.reason.contains("secret") == false)
    #expect(parse("A='b\nB=c").issues == [LineIssue(line: 1, reason: "has a quotation mark without its counterpart")])
  }

  @Test("Any bytes are read without a trap, and cutting a file at any place neither")
  func hostile() {
    let text = Array("A=\"a\\\"b\"\\\nexport B='c\nd' # e\r\n\u{FEFF}C=\\\0".utf8) + [0xFF, 0xFE, UInt8(ascii: "=")]
    for end in 0...text.count { _ = EnvironmentFile(parsing: Array(text[..<end])) }
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      let alphabet = Array("A=\\\"'# \n\r;\u{e9}export".utf8) + [0, 0xFF]
      _ = EnvironmentFile(
        parsing: (0..<Int.random(in: 0..<40, using: &random)).compactMap { _ in alphabet.randomElement(using: &random) }
      )
    }
  }

  @Test("A setting of the file takes precedence, and its issues name the file and the line")
  func origins() throws {
    let path = directory.file("env", "# c\nSLUICE_MODEL=b\n\nSLUICE_LISTEN=9000\nSLUICE_MODLE=x\nSLUICE_MODEL=c\n")
    let environment = Environment([Environment.fileVariable: path, "SLUICE_MODEL": "a", "SLUICE_AUTH": "none"])
    #expect(environment["SLUICE_MODEL"] == "c")
    let error = #expect(throws: ConfigurationError.self) { try Configuration(environment: environment) }
    #expect(
      error?.description == "\(path):4: SLUICE_LISTEN must be unix:PATH or HOST:PORT, not \"9000\"",
      "\(String(describing: error))")
    try replaceFile(path, with: Array("SLUICE_MODLE=x\nSLUICE_MODEL=b\nSLUICE_MODEL=c\n".utf8))
    let mended = Environment([Environment.fileVariable: path, "SLUICE_AUTH": "none"])
    let warnings = try Configuration(environment: mended).warnings(environment: mended, features: [])
    #expect(
      warnings.map(\.description) == [
        "\(path):3: SLUICE_MODEL replaces the value of \(path):2",
        "\(path):1: SLUICE_MODLE is not a setting; did you mean SLUICE_MODEL?",
      ])
  }

  @Test("A file that cannot be read, or names itself, is an error")
  func file() {
    for (path, reason) in [
      ("/nowhere", "cannot be read"), (directory.file("self", "SLUICE_ENV_FILE=x"), "cannot be set in the file"),
    ] {
      let environment = Environment([Environment.fileVariable: path, "SLUICE_AUTH": "none"])
      let error = #expect(throws: ConfigurationError.self) { try Configuration(environment: environment) }
      #expect(error?.description.contains("SLUICE_ENV_FILE \(reason)") == true, "\(String(describing: error))")
    }
  }
}
