/// The parts of an absolute URL, as they are written (RFC 3986, 3).
struct URLParts {
  let scheme: Substring
  let authority: Substring
  /// The path and whatever follows it; it can be empty.
  let path: Substring

  /// Returns nil if the URL has no scheme.
  init?(_ url: some StringProtocol) {
    let parts = Substring(url).split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2, !parts[0].isEmpty else { return nil }
    scheme = parts[0]
    authority = parts[1].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
    path = parts[1][authority.endIndex...]
  }

  /// The scheme, the host and the port, in the form in which they can be compared.
  var origin: String {
    let (scheme, authority) = (scheme.lowercased(), authority.lowercased())
    let standard = scheme == "https" ? ":443" : ":80"
    return scheme + "://" + (authority.hasSuffix(standard) ? String(authority.dropLast(standard.count)) : authority)
  }

  /// The name or the address of the host, without a user, a port, and the brackets of an IPv6 address.
  var host: String {
    let host = authority.split(separator: "@").last ?? ""
    return String(host.first == "[" ? host.prefix { $0 != "]" } : host.prefix { $0 != ":" })
  }
}
