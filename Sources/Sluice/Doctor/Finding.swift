import JSON

/// A fault of an installation, and what mends it.
package struct Finding: Sendable, Equatable {
  /// The kinds of faults.
  package enum Code: String, Sendable, CaseIterable {
    case unreachable
    case notSluice = "not_sluice"
    case unauthorized, buffered, compressed
    case readTimeout = "read_timeout"
    case noTerminalRecord = "no_terminal_record"
    case socketPermissions = "socket_permissions"
    case upstreamUnreachable = "upstream_unreachable"
    case upstreamUnauthorized = "upstream_unauthorized"
    case upstreamModel = "upstream_model"
    case upstreamNotStreaming = "upstream_not_streaming"
    case storeUnwritable = "store_unwritable"
    case storeFull = "store_full"
    case clockSkew = "clock_skew"
    case descriptors
  }

  package let code: Code
  /// The fault, as a sentence.
  package let message: String
  /// The directive, the setting or the command that mends it, as a sentence.
  package let fix: String

  package init(_ code: Code, _ message: String, fix: String) {
    self.code = code
    self.message = message
    self.fix = fix
  }

  package init?(json: JSON) {
    guard let code = json["code"]?.string.flatMap(Code.init(rawValue:)), let message = json["message"]?.string,
      let fix = json["fix"]?.string
    else { return nil }
    self.init(code, message, fix: fix)
  }

  package var json: JSON { ["code": .string(code.rawValue), "message": .string(message), "fix": .string(fix)] }
}

extension [Finding] {
  /// The findings as `GET /api/doctor` and `sluice doctor --json` return them.
  package var json: JSON { ["ok": .bool(isEmpty), "findings": .array(map(\.json))] }
}
