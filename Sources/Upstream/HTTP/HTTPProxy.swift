/// The proxy of an HTTP client.
package struct HTTPProxy: Sendable, Equatable {
  /// The URL of the proxy, or its host and port (CURLOPT_PROXY(3)).
  package var url: String?
  /// The hosts that are reached without it, separated by commas (CURLOPT_NOPROXY(3)).
  package var exceptions: String?

  package init() {}

  /// Creates the proxy that environment variables name for a URL, as curl(1) does (libcurl-env(3)).
  package init(for url: String, environment: [String: String]) {
    func first(_ names: String...) -> String? { names.lazy.compactMap { environment[$0] }.first { !$0.isEmpty } }
    // HTTP_PROXY in upper case would be the field Proxy of a CGI request.
    let own = url.hasPrefix("https:") ? first("https_proxy", "HTTPS_PROXY") : first("http_proxy")
    self.url = own ?? first("all_proxy", "ALL_PROXY")
    exceptions = first("no_proxy", "NO_PROXY")
  }
}
