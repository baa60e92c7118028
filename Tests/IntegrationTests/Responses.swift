import EventStream
import Foundation
import JSON
import SluiceTesting
import Testing

/// A response as printed by curl(1), including the head.
extension String {
  /// The body, without the preceding heads.
  var body: Substring {
    var rest = self[...]
    while rest.hasPrefix("HTTP/"), let end = rest.range(of: "\r\n\r\n") { rest = rest[end.upperBound...] }
    return rest
  }

  /// The events of a streamed response; empty if it cannot be parsed.
  var events: [ServerSentEvent] {
    var parser = EventStreamParser()
    let bytes = Array(body.utf8)
    return (try? parser.events(in: bytes.span)) ?? []
  }

  /// The body as JSON; null if it is not valid JSON.
  var json: JSON { (try? JSON(parsing: Array(body.utf8))) ?? .null }

  /// Returns the value of a header field; the name is not case-sensitive.
  func field(_ name: String) -> String? {
    let line = split(whereSeparator: \.isNewline).first { $0.lowercased().hasPrefix(name.lowercased() + ": ") }
    return line.map { String($0.dropFirst(name.count + 2)) }
  }

  var status: Int? { split(separator: " ").dropFirst().first.flatMap { Int($0) } }
  var errorCode: String? { json["error"]?["code"]?.string }
}

extension ServerSentEvent {
  var json: JSON { (try? JSON(parsing: Array(data.utf8))) ?? .null }
}

extension JSON {
  subscript(index: Int) -> JSON? {
    guard case .array(let values) = self, values.indices.contains(index) else { return nil }
    return values[index]
  }

  var count: Int {
    guard case .array(let values) = self else { return 0 }
    return values.count
  }
}

extension Servers {
  /// Starts a POST request with a JSON body.
  func startPost(_ path: String, _ json: String, _ more: [String] = [], token: String? = nil) throws -> Program {
    try curl(path, ["-H", "Content-Type: application/json", "-d", json] + more, token: token)
  }

  /// Returns the response to a POST request with a JSON body.
  func post(_ path: String, _ json: String, _ more: [String] = [], token: String? = nil) async throws -> String {
    await output(of: try startPost(path, json, more, token: token))
  }

  /// Returns the response to a request without a body.
  func get(_ path: String, _ more: [String] = [], token: String? = nil) async throws -> String {
    await output(of: try curl(path, more, token: token))
  }
}

/// A temporary tokens file with one token per user.
final class TokensFile: Sendable {
  let path: String
  let tokens: [String]

  init(_ users: String...) async throws {
    path = FileManager.default.temporaryDirectory.path + "/sluice-tokens-\(UUID().uuidString)"
    var tokens: [String] = []
    for user in users {
      let program = try Program(
        releaseDirectory + "/sluice", ["token", user], environment: ["SLUICE_TOKENS_FILE": path])
      #expect(await program.exitCode() == 0, "\(program.errors)")
      tokens.append(program.output.trimmingCharacters(in: .whitespacesAndNewlines))
    }
    self.tokens = tokens
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }
}
