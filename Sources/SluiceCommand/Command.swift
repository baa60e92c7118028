import FoundationEssentials
import Glibc
import Sluice

/// The `sluice` program: serves the built-in endpoints, checks a configuration, creates tokens.
@main
struct Command {
  static func main() {
    exit(run(Array(CommandLine.arguments.dropFirst())))
  }

  /// Runs the command given by `arguments`.
  ///
  /// - Returns: the exit status: 0 for success, 1 for a failure, 2 for invalid arguments.
  static func run(_ arguments: [String]) -> CInt {
    var rest = Arguments(Array(arguments.dropFirst()))
    do {
      switch arguments.first {
      case nil: return serve()
      case "--check":
        try rest.finish()
        return check()
      case "--version":
        try rest.finish()
        return printLine((["sluice \(Application.version)"] + Libraries.versions).joined(separator: "\n")) ? 0 : 1
      case "--help":
        try rest.finish()
        return printLine(help) ? 0 : 1
      case "token": return try addToken(&rest)
      case "doctor": return try DoctorCommand.run(&rest)
      case "prune": return try StoreCommands.prune(&rest)
      case "export": return try StoreCommands.export(&rest)
      case "forget": return try StoreCommands.forget(&rest)
      case let word?: throw UsageError(reason: "unknown argument \(word)")
      }
    } catch let error as UsageError {
      printError("\(error.reason); see sluice --help")
      return 2
    } catch {
      printError("\(error)")
      return 1
    }
  }

  private static func serve() -> CInt {
    do {
      try Application().runBlocking()
      return 0
    } catch let error as ConfigurationError {
      for issue in error.issues { printError("\(issue)") }
    } catch {
      printError("\(error)")
    }
    return 1
  }

  private static func check() -> CInt {
    do throws(ConfigurationError) {
      let application = try Application()
      for warning in application.configurationWarnings { printError("warning: \(warning)") }
      for line in application.configurationSummary { print("sluice: \(line)") }
      print("sluice: the configuration is valid")
      return 0
    } catch {
      for issue in error.issues { printError("\(issue)") }
      return 1
    }
  }

  private static func addToken(_ arguments: inout Arguments) throws -> CInt {
    let user = try arguments.word("USER")
    try arguments.finish()
    let path = try ServiceSettings.tokensFile(in: environment)
    let token = try Tokens.add(user: user, toFile: path)
    guard printLine(token) else {
      printError("the token could not be printed: remove its line from \(path)")
      return 1
    }
    return 0
  }

  static var environment: [String: String] { ProcessInfo.processInfo.environment }

  /// Returns false if the descriptor did not accept the complete line.
  @discardableResult
  static func printLine(_ text: String, to descriptor: CInt = STDOUT_FILENO) -> Bool {
    let line = Array("\(text)\n".utf8)
    return unsafe write(descriptor, line, line.count) == line.count
  }

  static func printError(_ message: String) { printLine("sluice: \(message)", to: STDERR_FILENO) }

  private static let help = """
    sluice \(Application.version): stream language-model responses through nginx

    sluice               serve FastCGI on systemd's socket, SLUICE_LISTEN or descriptor 0, or one CGI request
    sluice --check       check the configuration, print all errors, exit 0 or 1
    sluice token USER    create a token for USER, print it once, append its digest to SLUICE_TOKENS_FILE
    sluice doctor URL [--token TOKEN] [--json]
                         examine the installation at URL, such as https://chat.example.com, and print what to mend
    sluice prune --older-than AGE [--user USER] [--dry-run] [--json]
                         remove sessions and reports that are older than AGE, such as 90d
    sluice export USER [--json]
                         write a tar archive of what is stored of USER to standard output
    sluice forget USER [--yes] [--json]
                         remove what is stored of USER
    sluice --version     print the versions of the program and its libraries
    sluice --help        print this help

    prune, export and forget work on SLUICE_STATE, also beside a running service.

    Settings are environment variables. Those marked * can be overridden per nginx location
    with fastcgi_param:

    \(Application.settingsHelp)
    """
}
