import FastCGI

extension Request {
  /// Returns whether a page of another origin made the request, or nil if the request does not identify its page.
  ///
  /// `Sec-Fetch-Site` decides if the browser sends it (W3C Fetch Metadata, 2.4), which it does not do over plain HTTP.
  /// Otherwise `Origin`, which it sends with every POST, or `Referer` decides.
  ///
  /// - Parameter origins: the origins whose pages can make requests.
  func isCrossSite(allowing origins: [String]) -> Bool? {
    let origin = header("Origin")
    if let origin, origins.contains(origin) { return false }
    if let site = header("Sec-Fetch-Site") { return site != "same-origin" && site != "none" }
    guard let page = origin ?? header("Referer") else { return nil }
    return Self.authority(of: page).map { $0 != header("Host")?.lowercased() } ?? true
  }

  /// Returns whether a page of another host made the request, as far as the field `Origin` says, which browsers send
  /// with every WebSocket. The scheme makes no difference, because TLS can end at the web server.
  ///
  /// - Parameter origins: the origins whose pages can make requests.
  func hasForeignOrigin(allowing origins: [String]) -> Bool {
    guard let origin = header("Origin"), !origins.contains(origin) else { return false }
    return Self.authority(of: origin).map { $0 != header("Host")?.lowercased() } ?? true
  }

  /// Returns the host and port of a URL or an origin in lower case, or nil if it has none, such as the origin `null`.
  private static func authority(of url: String) -> String? {
    guard let start = url.firstRange(of: "://")?.upperBound else { return nil }
    let authority = url[start...].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
    return authority.isEmpty ? nil : authority.lowercased()
  }
}

extension Failure {
  static let crossSite = Failure(.forbidden, "Requests from pages of other origins are not allowed.")
}
