/// A file of `NAME=value` lines, in the form of systemd's environment files (systemd.exec(5), `EnvironmentFile=`).
///
/// Lines that begin with `#` or `;` are comments. A value can be quoted; a backslash at the end of a line continues it.
struct EnvironmentFile {
  struct Assignment: Equatable {
    let name: String
    let value: String
    /// The number of the line on which the assignment begins.
    let line: Int
  }

  /// The assignments in the order of the file. A name can occur several times; the last one counts.
  private(set) var assignments: [Assignment] = []
  /// The lines that are no assignments.
  private(set) var issues: [LineIssue] = []

  init(parsing content: [UInt8]) {
    var reader = Reader(content: Array(String(decoding: content, as: UTF8.self).unicodeScalars))
    while let line = reader.nextLine() {
      do throws(SettingError) {
        let name = try reader.name()
        assignments.append(Assignment(name: name, value: try reader.value(), line: line))
      } catch { issues.append(LineIssue(line: line, reason: error.reason)) }
    }
  }
}

/// A reader of an environment file.
private struct Reader {
  private let content: [Unicode.Scalar]
  private var position = 0
  private var line = 1

  init(content: [Unicode.Scalar]) { self.content = content }

  private var next: Unicode.Scalar? { position < content.count ? content[position] : nil }

  private mutating func advance() {
    if next == "\n" { line += 1 }
    position += 1
  }

  private mutating func skipBlanks() {
    while let scalar = next, scalar == " " || scalar == "\t" || scalar == "\r" { advance() }
  }

  private mutating func skipLine() {
    while let scalar = next, scalar != "\n" { advance() }
  }

  /// Skips empty lines and comments.
  ///
  /// - Returns: the number of the next line; nil at the end.
  mutating func nextLine() -> Int? {
    while let scalar = next {
      switch scalar {
      case " ", "\t", "\r", "\n": advance()
      case "#", ";": skipLine()
      default: return line
      }
    }
    return nil
  }

  /// Reads a name and the equals sign behind it.
  mutating func name() throws(SettingError) -> String {
    let start = position
    while let scalar = next, scalar != "=", scalar != "\n" { advance() }
    let name = String(String.UnicodeScalarView(content[start..<position])).trimmed
    guard next == "=" else {
      // The rest of the line can be a secret.
      let start = name.prefix { $0.isLetter || $0.isNumber || $0 == "_" }.prefix(40)
      throw SettingError(reason: "must be NAME=value, or a comment that begins with #; it begins with \"\(start)\"")
    }
    if !isName(name) {
      skipLine()
      let exported = name.hasPrefix("export ") ? name.dropFirst("export ".count).trimmed : ""
      throw SettingError(
        reason: isName(exported)
          ? "\(exported) must stand without \"export\", because this is not a shell script"
          : "must be NAME=value: a name has letters, digits and \"_\", unlike \"\(name.prefix(80))\"")
    }
    advance()
    return String(name)
  }

  private func isName(_ text: Substring) -> Bool {
    text.unicodeScalars.first?.isDigit == false
      && text.unicodeScalars.allSatisfy { $0 == "_" || ($0.isASCII && ($0.properties.isAlphabetic || $0.isDigit)) }
  }

  /// Reads a value up to the end of its line.
  mutating func value() throws(SettingError) -> String {
    var value = String.UnicodeScalarView()
    // Behind a quoted part, as in "a"'b', there can be further ones.
    while true {
      skipBlanks()
      switch next {
      case "'": try readQuoted(into: &value) { _ in nil }
      case "\"": try readQuoted(into: &value) { "\"\\`$".unicodeScalars.contains($0) ? [$0] : $0 == "\n" ? [] : nil }
      case "#" where !value.isEmpty:
        skipLine()
        throw SettingError(reason: "has a comment behind its value: a comment must be on a line of its own")
      default:
        readUnquoted(into: &value)
        return String(value)
      }
    }
  }

  /// Reads a value without its trailing white space.
  private mutating func readUnquoted(into value: inout String.UnicodeScalarView) {
    var blanks = 0
    while let scalar = next, scalar != "\n" {
      advance()
      if scalar == "\\" {
        if let escaped = next, escaped != "\n" { value.append(escaped) }
        advance()
        blanks = 0
      } else {
        value.append(scalar)
        blanks = scalar == " " || scalar == "\t" || scalar == "\r" ? blanks + 1 : 0
      }
    }
    value.removeLast(blanks)
  }

  /// Reads a quoted part of a value, which can have several lines.
  ///
  /// - Parameter unescape: returns what a backslash and a character stand for; nil if they stand for themselves.
  private mutating func readQuoted(
    into value: inout String.UnicodeScalarView, unescape: (Unicode.Scalar) -> [Unicode.Scalar]?
  ) throws(SettingError) {
    let quote = next
    advance()
    while let scalar = next, scalar != quote {
      advance()
      guard scalar == "\\", let escaped = next, let meaning = unescape(escaped) else {
        value.append(scalar)
        continue
      }
      value += meaning
      advance()
    }
    guard next == quote else { throw SettingError(reason: "has a quotation mark without its counterpart") }
    advance()
  }
}

extension Unicode.Scalar {
  fileprivate var isDigit: Bool { ("0"..."9").contains(self) }
}
