import EventLoop
import Glibc
import Upstream

extension GeneratorKind {
  /// A generator that runs a program for each response.
  static let command = GeneratorKind(
    name: "command",
    settings: [
      .global("SLUICE_COMMAND", "local model: a program and its arguments, as words or a JSON array") {
        (c, text) throws(SettingError) in
        do throws(CommandWords.Issue) { c[CommandSettings.self].words = try CommandWords.parse(text) } catch {
          throw SettingError(reason: error.reason)
        }
      },
      .perLocation("SLUICE_COMMAND_PROCESSES", "maximum concurrent commands (default: the number of cores)") {
        (c, text) throws(SettingError) in
        let count = try SettingValue.count(text)
        guard count > 0 else { throw SettingError(reason: "must be greater than 0") }
        c[CommandSettings.self].maximumProcesses = count
      },
    ],
    isDefault: { _ in false },
    readEnvironment: { $0[CommandSettings.self].environment = $1.filter { CommandGenerator.isPassedOn($0.key) } },
    requirements: { configuration in
      configuration[CommandSettings.self].words.isEmpty
        ? [.init(variable: "SLUICE_GENERATOR", reason: "is command, but SLUICE_COMMAND is not set")] : []
    },
    check: { configuration in
      let settings = configuration[CommandSettings.self]
      guard let program = settings.words.first, settings.program == nil else { return [] }
      let place = program.contains("/") ? "" : " in PATH"
      return [
        .init(variable: "SLUICE_COMMAND", reason: "names a program that cannot be executed\(place): \(program)")
      ]
    },
    warnings: { configuration in
      // Anything else is for an interpreter that the kernel can be configured to find (binfmt_misc).
      guard let path = configuration[CommandSettings.self].program, let start = try? readFile(path, maximumBytes: 4),
        !start.starts(with: Array("#!".utf8)), !start.starts(with: [0x7F] + Array("ELF".utf8))
      else { return [] }
      return [
        .init(
          variable: "SLUICE_COMMAND",
          reason: "names \(path), which is no program and does not begin with #! and an interpreter")
      ]
    },
    description: { "command \($0[CommandSettings.self].words.first ?? "")" },
    source: { _, resources in
      ChildProcess.keepResults()
      return { configuration in
        let settings = configuration[CommandSettings.self]
        return CommandGenerator(
          settings.words, environment: settings.environment, limit: settings.maximumProcesses ?? cores,
          slots: resources.commands, onLine: resources.onCommandLine)
      }
    })
}

/// The number of processors. The system reads a file for it, which most CGI programs must not wait for.
private let cores = max(1, sysconf(CInt(_SC_NPROCESSORS_ONLN)))

private struct CommandSettings: GeneratorSettings {
  /// The program and its arguments.
  var words: [String] = []
  /// Nil stands for the number of cores.
  var maximumProcesses: Int?
  /// The variables that the program gets.
  var environment: [String: String] = [:]

  /// The path of the program; nil if there is none that can be executed.
  var program: String? { words.first.flatMap { CommandWords.find($0, in: environment["PATH"]) } }
}
