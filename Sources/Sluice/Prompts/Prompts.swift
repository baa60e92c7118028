import EventLoop
import FastCGI
import FoundationEssentials
import Glibc

/// The instructions for models: texts built into the program, and the administrator's files that override them.
///
/// A file is read again after it has changed; each check costs one stat(2).
final class Prompts: Sendable {
  private let directory: String?
  /// The files by path, each without leading and trailing white space.
  private let files = WatchedFiles { String(String(decoding: $0, as: UTF8.self).trimmed) }

  /// - Parameter directory: `SLUICE_PROMPTS`, which can contain `chat.txt`, `report.txt`, `onboarding.txt` and
  ///   `blocks/NAME.txt`.
  init(directory: String?) { self.directory = directory }

  /// The built-in texts, by the name of the file that overrides each, without its extension.
  static let builtIn: [String: String] = [
    "report": text(PackageResources.report_txt),
    "onboarding": text(PackageResources.onboarding_txt),
    "blocks/ask-question": text(PackageResources.block_ask_question_txt),
    "blocks/explain-like-i-am-10": text(PackageResources.block_explain_like_i_am_10_txt),
    "blocks/diagram": text(PackageResources.block_diagram_txt),
    "blocks/quiz": text(PackageResources.block_quiz_txt),
  ]

  private static func text(_ bytes: [UInt8]) -> String { String(String(decoding: bytes, as: UTF8.self).trimmed) }

  /// Returns the text `name`: the administrator's, otherwise the built-in one, or nil if there is neither.
  func text(_ name: String) throws(Failure) -> String? {
    if let path = path(name), unsafe access(path, F_OK) == 0 { return try files.content(path) }
    return Self.builtIn[name]
  }

  /// Returns the text of a file that the configuration of a location names.
  func file(_ path: String) throws(Failure) -> String { try files.content(path) }

  /// The names of all blocks, including the administrator's.
  var blocks: [String] {
    var names = Set(Self.builtIn.keys.filter { $0.hasPrefix("blocks/") }.map { String($0.dropFirst(7)) })
    if let directory {
      for file in (try? fileNames(in: directory + "/blocks")) ?? [] where file.hasSuffix(".txt") {
        names.insert(String(file.dropLast(4)))
      }
    }
    return names.filter(Identifier.isValid).sorted()
  }

  private func path(_ name: String) -> String? { directory.map { "\($0)/\(name).txt" } }
}
