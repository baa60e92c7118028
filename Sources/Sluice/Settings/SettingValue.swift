/// The reason why the text of a setting is invalid, as the end of a sentence: "must be …".
struct SettingError: Error, Equatable {
  let reason: String
}

/// Parsers for the text of settings. Each throws an error that states the expected value.
enum SettingValue {
  /// Returns a duration, written as `500ms`, `30s`, `2m`, `1h`, `90d` or `0`.
  static func duration(_ text: String) throws(SettingError) -> Duration {
    if text == "0" { return .zero }
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)]
    for (unit, milliseconds) in units where text.hasSuffix(unit) {
      guard let count = number(text.dropLast(unit.count)), count <= 1_000_000 else { continue }
      return .milliseconds(count * milliseconds)
    }
    throw SettingError(reason: "must be a duration such as 500ms, 30s or 2m")
  }

  /// Returns a number of bytes, written as `65536`, `64K`, `1M` or `2G`.
  static func size(_ text: String) throws(SettingError) -> Int {
    let units: [(String, Int)] = [("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("", 1)]
    for (unit, bytes) in units where text.uppercased().hasSuffix(unit) {
      guard let count = number(text.dropLast(unit.count)), count <= 1 << 32 else { continue }
      return count * bytes
    }
    throw SettingError(reason: "must be a size in bytes such as 65536, 64K or 1M")
  }

  static func count(_ text: String) throws(SettingError) -> Int {
    guard let count = number(text), count <= 1 << 32 else {
      throw SettingError(reason: "must be a non-negative integer")
    }
    return count
  }

  /// Returns true for `on`, `true` or `1`, and false for `off`, `false` or `0`, in any case.
  static func flag(_ text: String) throws(SettingError) -> Bool {
    switch text.lowercased() {
    case "on", "true", "1": return true
    case "off", "false", "0": return false
    default: throw SettingError(reason: "must be on or off")
    }
  }

  static func choice<Choice: RawRepresentable & CaseIterable>(_ text: String) throws(SettingError) -> Choice
  where Choice.RawValue == String {
    if let choice = Choice(rawValue: text) { return choice }
    throw mustBeOne(of: Choice.allCases.map(\.rawValue))
  }

  /// Returns `text` if it is one of `names`.
  static func choice(_ text: String, of names: [String]) throws(SettingError) -> String {
    if names.contains(text) { return text }
    throw mustBeOne(of: names)
  }

  private static func mustBeOne(of names: [String]) -> SettingError {
    let last = names.last.map { (names.count > 1 ? " or " : "") + $0 } ?? ""
    return SettingError(reason: "must be " + names.dropLast().joined(separator: ", ") + last)
  }

  /// Returns whether `text` is an origin as browsers send it, such as `https://app.example.com`, with the port if it is
  /// not the default port.
  static func isOrigin(_ text: Substring) -> Bool {
    guard let scheme = ["https://", "http://"].first(where: text.hasPrefix) else { return false }
    let host = text.dropFirst(scheme.count)
    return !host.isEmpty && !host.contains { $0 == "/" || $0 == "*" || $0 == "@" || !$0.isASCII || $0.isUppercase }
  }

  /// Returns the number that `text` consists of; nil unless it contains only digits, without sign or space.
  private static func number(_ text: some StringProtocol) -> Int? {
    text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ? Int(text) : nil
  }
}

/// Returns a text in which a URL's user name and password are replaced, for messages.
func withoutPassword(_ text: String) -> String {
  guard let scheme = text.firstRange(of: "://") else { return text }
  let authority = text[scheme.upperBound...].prefix { $0 != "/" }
  guard let at = authority.lastIndex(of: "@") else { return text }
  return text[..<scheme.upperBound] + "…" + text[at...]
}
