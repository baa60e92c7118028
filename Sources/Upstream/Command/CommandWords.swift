import Glibc
import JSON

/// The words of a command, from the text of a setting.
package enum CommandWords {
  /// The reason why a text is no command, as the end of a sentence.
  package struct Issue: Error, Equatable {
    package let reason: String
  }

  /// Returns the words of a JSON array of strings, or of words apart by white space. Single and double quotes group, also
  /// a part of a word, and contain all other characters as they are. There is no shell: no variables, no wildcards.
  ///
  /// - Throws: an issue if there is no word, if a quote is not closed, or if a word contains a NUL.
  package static func parse(_ text: String) throws(Issue) -> [String] {
    let words = text.first { !$0.isWhitespace } == "[" ? try parseJSON(text) : try parseWords(text)
    guard words.first?.isEmpty == false else { throw Issue(reason: "must name a program") }
    // Arguments are C strings (execve(2)).
    guard !words.contains(where: { $0.utf8.contains(0) }) else { throw Issue(reason: "must not contain a NUL") }
    return words
  }

  /// Returns the path of an executable file: `program` itself if it contains a slash, else the first such file in the
  /// directories of `path`; nil if there is none.
  package static func find(_ program: String, in path: String?) -> String? {
    let paths =
      program.contains("/")
      ? [program] : (path ?? "/usr/bin:/bin").split(separator: ":").map { "\($0)/\(program)" }
    return paths.first { path in
      var status = stat()
      return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFREG && access(path, X_OK) == 0
    }
  }

  private static func parseJSON(_ text: String) throws(Issue) -> [String] {
    let words = (try? JSON(parsing: Array(text.utf8)))?.array?.map(\.string)
    guard let words, !words.contains(nil) else {
      throw Issue(reason: "begins with [ and must be a JSON array of strings")
    }
    return words.compactMap(\.self)
  }

  private static func parseWords(_ text: String) throws(Issue) -> [String] {
    var words: [String] = []
    var word: String?
    var quote: Character?
    for character in text {
      if character == quote {
        quote = nil
      } else if quote == nil, character == "\"" || character == "'" {
        quote = character
        // Quotes make a word even if there is nothing between them.
        word = word ?? ""
      } else if quote == nil, character.isWhitespace {
        if let word { words.append(word) }
        word = nil
      } else {
        word = (word ?? "") + String(character)
      }
    }
    if let quote { throw Issue(reason: "has a quote (\(quote)) that is not closed") }
    return words + (word.map { [$0] } ?? [])
  }
}
