/// The server and the base path of a plain `http://` URL.
struct HTTPOrigin: Sendable, Equatable {
  /// The name or the address of the server, without the brackets of an IPv6 address.
  let host: String
  let port: String
  /// The value of the `Host` field.
  let authority: String
  /// The path, without a trailing slash; it can be empty.
  let path: String

  /// Parses a URL. Returns nil unless it consists of `http://`, a host, an optional port and an optional path. A URL
  /// with a user, a query, or other than ASCII characters is left to libcurl.
  init?(_ url: String) {
    let scheme = "http://"
    guard url.hasPrefix(scheme), url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && !#"@?#\"<>^`{|}"#.utf8.contains($0) })
    else { return nil }
    let rest = url.dropFirst(scheme.count)
    let authority = rest.prefix { $0 != "/" }
    var host = authority
    var port: Substring?
    if host.first == "[" {
      guard let end = host.firstIndex(of: "]") else { return nil }
      let suffix = host[host.index(after: end)...]
      guard suffix.isEmpty || suffix.first == ":" else { return nil }
      if !suffix.isEmpty { port = suffix.dropFirst() }
      host = host[..<end].dropFirst()
    } else if let colon = host.firstIndex(of: ":") {
      port = host[host.index(after: colon)...]
      host = host[..<colon]
    }
    guard !host.isEmpty, !host.contains("%"), port.map(Self.isPort) ?? true else { return nil }
    self.host = String(host)
    self.port = port.map(String.init) ?? "80"
    self.authority = String(authority)
    let path = rest.dropFirst(authority.count)
    self.path = String(path.hasSuffix("/") ? path.dropLast() : path)
  }

  private static func isPort(_ text: Substring) -> Bool {
    text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } && (UInt16(text) ?? 0) > 0
  }
}
