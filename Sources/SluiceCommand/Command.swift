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
    switch arguments {
    case []: return serve()
    case ["--check"]: return check()
    case ["--version"]:
      print("sluice \(Application.version)")
      return 0
    case ["--help"]:
      print(help)
      return 0
    case let words where words.count == 2 && words[0] == "token": return addToken(for: words[1])
    default:
      printError("invalid arguments: \(arguments.joined(separator: " ")); see sluice --help")
      return 2
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

  private static func addToken(for user: String) -> CInt {
    guard let path = environment("SLUICE_TOKENS_FILE") else {
      printError("SLUICE_TOKENS_FILE is not set: it must name the file to which the token is appended")
      return 1
    }
    do {
      let token = try Tokens.add(user: user, toFile: path)
      guard printLine(token) else {
        printError("the token could not be printed: remove its line from \(path)")
        return 1
      }
      return 0
    } catch {
      printError("\(error)")
      return 1
    }
  }

  private static func environment(_ name: String) -> String? {
    guard let value = unsafe getenv(name), let text = unsafe String(validatingCString: value), !text.isEmpty else {
      return nil
    }
    return text
  }

  /// Returns false if standard output did not accept the complete line.
  private static func printLine(_ text: String) -> Bool {
    let line = Array("\(text)\n".utf8)
    return unsafe write(STDOUT_FILENO, line, line.count) == line.count
  }

  private static func printError(_ message: String) {
    let line = Array("sluice: \(message)\n".utf8)
    _ = unsafe write(STDERR_FILENO, line, line.count)
  }

  private static let help = """
    sluice \(Application.version): stream language-model responses through nginx

    sluice               serve FastCGI on systemd's socket, SLUICE_LISTEN or descriptor 0, or one CGI request
    sluice --check       check the configuration, print all errors, exit 0 or 1
    sluice token USER    create a token for USER, print it once, append its digest to SLUICE_TOKENS_FILE
    sluice --version     print the version
    sluice --help        print this help

    Settings are environment variables. Those marked * can be overridden per nginx location
    with fastcgi_param:

    \(Application.settingsHelp)
    """
}
