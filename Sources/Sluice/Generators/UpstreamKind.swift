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
        guard text.hasPrefix("http://") || text.hasPrefix("https://") else {
          throw SettingError(reason: "must start with http:// or https://")
        }
        c[UpstreamSettings.self].url = text
      },
      .global("SLUICE_UPSTREAM_KEY_FILE", "API key file (default $CREDENTIALS_DIRECTORY/upstream-key)") {
        (c, text) throws(SettingError) in c[UpstreamSettings.self].keyFile = text
      },
    ],
    isDefault: { $0[UpstreamSettings.self].url != nil },
    readEnvironment: { configuration, environment in
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
      return OpenAIGenerator.missingLibrary(for: url).map {
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
    source: { configuration, resources in
      let settings = configuration[UpstreamSettings.self]
      let key = settings.keyFile.map { path in WatchedFile(path) { $0 } }
      let environment = resources.environment
      let generator = OpenAIGenerator(
        baseURL: settings.url ?? "", certificateFile: environment["CURL_CA_BUNDLE"] ?? environment["SSL_CERT_FILE"],
        maximumIdleConnections: resources.maximumIdleConnections, maximumTextBytes: configuration.maximumResponseBytes,
        isShortOfDescriptors: resources.isShortOfDescriptors,
        key: {
          try key.map { file in
            try APIKey(parsing: Result { () throws(SystemError) in try file.content() }, of: file.path).text
          }
        })
      return { _ in generator }
    })
}

struct UpstreamSettings: GeneratorSettings {
  var url: String?
  var keyFile: String?
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
