import EventLoop
import FastCGI
import Glibc
import Upstream

extension GeneratorKind {
  /// A generator that uses an OpenAI-compatible API.
  static let upstream = GeneratorKind(
    name: "upstream",
    settings: [
      .global("SLUICE_UPSTREAM_URL", "base URL of an OpenAI-compatible API") {
        (c, text) throws(SettingError) in
        c[UpstreamSettings.self].url = try baseURL(text)
      },
      .global("SLUICE_UPSTREAM_KEY_FILE", "API key file (default $CREDENTIALS_DIRECTORY/upstream-key)") {
        (c, text) throws(SettingError) in c[UpstreamSettings.self].keyFile = text
      },
    ],
    isDefault: { $0[UpstreamSettings.self].url != nil },
    readEnvironment: { configuration, environment in
      configuration[UpstreamSettings.self].environment = environment.filter {
        UpstreamSettings.variables.contains($0.key)
      }
      guard let credentials = environment["CREDENTIALS_DIRECTORY"] else { return }
      let path = credentials + "/upstream-key"
      // A key file that exists but cannot be read is an error: requests must not be sent without the key.
      var status = stat()
      if unsafe lstat(path, &status) == 0 || errno != ENOENT { configuration[UpstreamSettings.self].keyFile = path }
    },
    listsModels: true,
    requirements: { configuration in
      guard let url = configuration[UpstreamSettings.self].url else {
        return [.init(variable: "SLUICE_GENERATOR", reason: "is upstream, but SLUICE_UPSTREAM_URL is not set")]
      }
      return OpenAIGenerator.missingLibrary(for: url, configuration[UpstreamSettings.self].proxy).map {
        [.init(variable: "SLUICE_UPSTREAM_URL", reason: "needs libcurl, which cannot be loaded: \($0)")]
      } ?? []
    },
    check: { configuration in
      guard let path = configuration[UpstreamSettings.self].keyFile else { return [] }
      do throws(APIKeyError) {
        _ = try APIKey(parsing: Result { () throws(SystemError) in try readFile(path) }, of: path)
      } catch { return [.init(variable: "SLUICE_UPSTREAM_KEY_FILE", reason: error.reason)] }
      return []
    },
    warnings: { configuration in
      let settings = configuration[UpstreamSettings.self]
      var found: [ConfigurationError.Issue] = []
      if configuration.model == nil {
        found.append(
          .init(variable: "SLUICE_MODEL", reason: "is not set: the model server must choose one, except under /v1"))
      }
      if let keyFile = settings.keyFile {
        found += Configuration.openPermissions("SLUICE_UPSTREAM_KEY_FILE", keyFile)
        if settings.url?.hasPrefix("http://") == true, !isLocal(settings.url ?? "") {
          found.append(
            .init(
              variable: "SLUICE_UPSTREAM_URL", reason: "starts with http://: the API key is sent without encryption"))
        }
      }
      return found
    },
    description: { configuration in
      let settings = configuration[UpstreamSettings.self]
      let key = settings.keyFile.map { ", with the key in \($0)" } ?? ", without a key"
      return "upstream at \(withoutPassword(settings.url ?? ""))\(key)"
    },
    sharesState: {
      $0[UpstreamSettings.self] == $1[UpstreamSettings.self] && $0.maximumResponseBytes == $1.maximumResponseBytes
    },
    source: { configuration, resources in
      let settings = configuration[UpstreamSettings.self]
      let key = settings.keyFile.map { path in WatchedFile(path) { $0 } }
      let generator = OpenAIGenerator(
        baseURL: settings.url ?? "", certificateFile: settings.certificateFile, proxy: settings.proxy,
        maximumIdleConnections: resources.maximumIdleConnections, maximumTextBytes: configuration.maximumResponseBytes,
        isShortOfDescriptors: resources.isShortOfDescriptors, counts: resources.connections,
        key: {
          try key.map { file in
            try APIKey(parsing: Result { () throws(SystemError) in try file.content() }, of: file.path).text
          }
        })
      return { _ in generator }
    })
}

/// Returns the base URL of an API, which its paths are appended to.
private func baseURL(_ text: String) throws(SettingError) -> String {
  guard let scheme = ["http://", "https://"].first(where: text.hasPrefix) else {
    throw SettingError(reason: "must start with http:// or https://")
  }
  let rest = text.dropFirst(scheme.count)
  guard !rest.contains(where: \.isWhitespace) else { throw SettingError(reason: "must not contain white space") }
  guard !rest.prefix(while: { $0 != "/" }).isEmpty else {
    throw SettingError(reason: "must name a host, as in https://api.openai.com/v1")
  }
  guard !rest.contains("/chat/completions") else {
    throw SettingError(reason: "must be the base URL, without /chat/completions")
  }
  return text
}

/// Whether a URL names this machine.
private func isLocal(_ url: String) -> Bool {
  let host = url.drop { $0 != ":" }.dropFirst(3)
  return ["127.", "localhost", "[::1]"].contains(where: host.hasPrefix)
}

struct UpstreamSettings: GeneratorSettings, Equatable {
  var url: String?
  var keyFile: String?
  /// The values of ``variables``.
  var environment: [String: String] = [:]

  /// The variables that are no settings of Sluice, and have the same meaning as for curl(1).
  static let variables: Set = [
    "CURL_CA_BUNDLE", "SSL_CERT_FILE", "http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy",
    "NO_PROXY",
  ]

  var certificateFile: String? { environment["CURL_CA_BUNDLE"] ?? environment["SSL_CERT_FILE"] }
  var proxy: HTTPProxy { HTTPProxy(for: url ?? "", environment: environment) }
}

/// The reason why a file contains no API key, as the end of a sentence.
private struct APIKeyError: Error, CustomStringConvertible {
  let path: String
  let reason: String
  var description: String { "the API key file \(path) \(reason)" }
}

/// An API key from a file that contains nothing else; it is valid as the value of a header field.
private struct APIKey {
  let text: String

  init(parsing file: Result<[UInt8], SystemError>, of path: String) throws(APIKeyError) {
    let content: [UInt8]
    do throws(SystemError) { content = try file.get() } catch {
      throw APIKeyError(path: path, reason: "cannot be read: \(error)")
    }
    text = String(String(decoding: content, as: UTF8.self).trimmed)
    guard !text.isEmpty else { throw APIKeyError(path: path, reason: "is empty") }
    guard FieldValue(text) != nil else {
      throw APIKeyError(
        path: path, reason: "has more than one line: it must contain only the API key")
    }
  }
}
