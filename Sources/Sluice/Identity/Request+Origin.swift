import FastCGI

extension Request {
  /// Whether a page of another origin made the request; nil when the request does not say.
  ///
  /// `Sec-Fetch-Site` decides where the browser sends it (W3C Fetch Metadata, 2.4), which over plain http it does not;
  /// then `Origin`, which it sends with every POST, or `Referer`.
  ///
  /// - Parameter origins: those whose pages may call.
  func isCrossSite(allowing origins: [String]) -> Bool? {
    let origin = header("Origin")
    if let origin, origins.contains(origin) { return false }
    if let site = header("Sec-Fetch-Site") { return site != "same-origin" && site != "none" }
    guard let page = origin ?? header("Referer") else { return nil }
    return Self.authority(of: page).map { $0 != header("Host")?.lowercased() } ?? true
  }

  /// Host and port of a URL or an origin, in lower case; nil when it has none, as the origin `null`.
  private static func authority(of url: String) -> String? {
    guard let start = url.firstRange(of: "://")?.upperBound else { return nil }
    let authority = url[start...].prefix { $0 != "/" && $0 != "?" && $0 != "#" }
    return authority.isEmpty ? nil : authority.lowercased()
  }
}

extension Failure {
  static let crossSite = Failure(.forbidden, "Requests from pages of other origins are not allowed.")
}
