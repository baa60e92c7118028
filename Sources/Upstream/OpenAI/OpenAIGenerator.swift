import CCurl
import EventLoop
import FoundationEssentials

/// Asks an OpenAI-compatible API: `POST …/chat/completions`, streamed.
///
/// TLS certificates are verified. Proxies are taken from `http_proxy`, `https_proxy` and `no_proxy`
/// (libcurl-env(3)); a file of other certificates to trust from `CURL_CA_BUNDLE` or `SSL_CERT_FILE`, as by curl(1).
public final class OpenAIGenerator: Generator {
  private let url: String
  private let key: @Sendable () -> String?
  private let certificateFile: String?

  /// - Parameters:
  ///   - baseURL: with the version and without an end slash: `https://api.openai.com/v1`.
  ///   - certificateFile: certificates to trust, in PEM form, instead of the system's.
  ///   - key: gives the API key for each request; nil sends none. Called on a loop's thread.
  public init(baseURL: String, certificateFile: String? = nil, key: @escaping @Sendable () -> String? = { nil }) {
    self.url = (baseURL.hasSuffix("/") ? String(baseURL.dropLast()) : baseURL) + "/chat/completions"
    self.certificateFile = certificateFile
    self.key = key
  }

  public func start(_ prompt: Prompt, on reactor: Reactor) -> Answer {
    let answer = Answer()
    let connections = reactor.attachment(for: self) {
      Connections(multi: CurlMulti(on: reactor, isPlain: url.hasPrefix("http://")), chunks: ChunkParser())
    }
    let key = key()
    var headers = ["Content-Type: application/json", "Accept: text/event-stream"]
    if let key { headers.append("Authorization: Bearer \(key)") }
    do {
      let body = try JSONEncoder().encode(RequestBody(prompt))
      let request = CurlRequest(url: url, headers: headers, body: Array(body), certificateFile: certificateFile)
      guard let transfer = CurlTransfer(request) else { throw GeneratorError(.failed, "The model's URL is not valid.") }
      ChatCompletion(transfer, answer, connections, reactor: reactor).begin()
    } catch {
      answer.fail(error as? GeneratorError ?? GeneratorError(.failed, "The question could not be encoded."))
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

  private struct RequestBody: Encodable {
    struct StreamOptions: Encodable {
      var includeUsage = true
      enum CodingKeys: String, CodingKey { case includeUsage = "include_usage" }
    }
    var model: String?
    var messages: [Message]
    var maximumTokens: Int?
    var stream = true
    var streamOptions = StreamOptions()

    enum CodingKeys: String, CodingKey {
      case model, messages, stream
      case maximumTokens = "max_tokens"
      case streamOptions = "stream_options"
    }

    init(_ prompt: Prompt) {
      model = prompt.model
      messages = prompt.messages
      maximumTokens = prompt.maximumTokens
    }
  }
}
