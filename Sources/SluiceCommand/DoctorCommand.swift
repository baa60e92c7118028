import Glibc
import Sluice

/// `sluice doctor`: examines an installation through its web server.
enum DoctorCommand {
  /// - Returns: 0 if all is well, 1 if there are findings.
  static func run(_ arguments: inout Arguments) throws -> CInt {
    let token = try arguments.value(of: "--token")
    let isJSON = arguments.flag("--json")
    let url = try arguments.word("URL")
    try arguments.finish()
    guard ["http://", "https://"].contains(where: url.hasPrefix) else {
      throw UsageError(reason: "the URL must start with http:// or https://")
    }
    var doctor = try Doctor(url, token: token, environment: Command.environment)
    doctor.run { if !isJSON { Command.printError("checking \($0)") } }
    if isJSON {
      Command.printLine(String(decoding: doctor.findings.json.encoded, as: UTF8.self))
    } else {
      for finding in doctor.findings {
        Command.printLine("\(finding.code.rawValue): \(finding.message)\n  \(finding.fix)")
      }
      if doctor.findings.isEmpty { Command.printLine("all is well") }
    }
    return doctor.findings.isEmpty ? 0 : 1
  }
}
