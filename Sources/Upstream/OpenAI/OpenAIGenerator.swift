import CCurl
import EventLoop
import JSON

/// Asks an OpenAI-compatible API: `POST …/chat/completions`, streamed.
///
/// TLS certificates are verified. Proxies are taken from `http_proxy`, `https_proxy` and `no_proxy`
/// (libcurl-env(3)); a file of other certificates to trust from `CURL_CA_BUNDLE` or `SSL_CERT_FILE`, as by curl(1).
public final class OpenAIGenerator: Generator {
  private let url: String
  private let key: @Sendable () -> String?
  private let certificateFile: String?
  private let maximumIdleConnections: Int

  /// - Parameters:
  ///   - baseURL: with the version and without an end slash: `https://api.openai.com/v1`.
  ///   - certificateFile: certificates to trust, in PEM form, instead of the system's.
  ///   - maximumIdleConnections: connections that each loop keeps open without using them.
  ///   - key: gives the API key for each request; nil sends none. Called on a loop's thread.
  public init(
    baseURL: String, certificateFile: String? = nil, maximumIdleConnections: Int = 64,
    key: @escaping @Sendable () -> String? = { nil }
  ) {
    self.url = (baseURL.hasSuffix("/") ? String(baseURL.dropLast()) : baseURL) + "/chat/completions"
    self.certificateFile = certificateFile
    self.maximumIdleConnections = maximumIdleConnections
    self.key = key
  }

  public func start(_ prompt: Prompt, on reactor: Reactor) -> Answer {
    let answer = Answer()
    let connections = reactor.attachment(for: self) {
      Connections(
        multi: CurlMulti(
          on: reactor, isPlain: url.hasPrefix("http://"), maximumIdleConnections: maximumIdleConnections),
        chunks: ChunkParser())
    }
    let key = key()
    var headers = ["Content-Type: application/json", "Accept: text/event-stream"]
    if let key { headers.append("Authorization: Bearer \(key)") }
    let request = CurlRequest(url: url, headers: headers, body: Self.body(of: prompt), certificateFile: certificateFile)
    if let transfer = CurlTransfer(request) {
      ChatCompletion(transfer, answer, connections, reactor: reactor).begin()
    } else {
      answer.fail(GeneratorError(.failed, "The model's URL is not valid."))
    }
    return answer
  }

  /// What one loop keeps for this generator.
  final class Connections {
    let multi: CurlMulti
    let chunks: ChunkParser

    init(multi: CurlMulti, chunks: ChunkParser) {
      self.multi = multi
      self.chunks = chunks
    }
  }

  /// The request's body, as the API's reference has it.
  private static func body(of prompt: Prompt) -> [UInt8] {
    var members: JSON.Members = [:]
    members["model"] = prompt.model.map(JSON.string)
    members["messages"] = .array(
      prompt.messages.map { ["role": .string($0.role.rawValue), "content": .string($0.content)] })
    members["max_tokens"] = prompt.maximumTokens.map(JSON.integer)
    members["stream"] = .bool(true)
    members["stream_options"] = ["include_usage": .bool(true)]
    members.append(prompt.parameters)
    return JSON.object(members).encoded
  }
}
