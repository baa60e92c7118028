import CLazyLibraries
import EventLoop
import Glibc
import JSON
import Synchronization

/// A generator that streams `POST …/chat/completions` from an OpenAI-compatible API.
///
/// TLS certificates are verified.
package final class OpenAIGenerator: CallbackGenerator {
  /// The base URL, without a trailing slash and a query.
  private let baseURL: String
  /// The query of all requests, with its question mark; empty if there is none.
  private let query: Substring
  private let key: @Sendable () throws -> String?
  /// The threads that encode large requests, at most two at a time.
  private let encoding = BlockingPool(maximumThreads: 2)
  private let certificateFile: String?
  private let proxy: HTTPProxy
  private let counts: ConnectionCounts
  private let maximumIdleConnections: Int
  private let isShortOfDescriptors: @Sendable () -> Bool
  private let maximumTextBytes: Int
  private let usesLibcurl: Bool
  /// Whether ``retire(on:)`` was called.
  private let isRetired = Atomic(false)
  /// The most recent list of models, and when it was received.
  private let modelList = Locked<(models: [JSON], at: LoopClock.Instant)?>(nil)

  /// The maximum size of a response with embeddings.
  private static let maximumEmbeddingBytes = 64 << 20

  /// The time for which a list of models is reused before it is requested again.
  private static let modelListAge: Duration = .seconds(60)

  /// - Parameters:
  ///   - baseURL: the URL with the version, such as `https://api.openai.com/v1`. A trailing slash is ignored. Paths are
  ///     inserted before a query, such as `?api-version=…`.
  ///   - certificateFile: certificates to trust instead of the system's, in PEM form. Sluice passes the file that
  ///     `CURL_CA_BUNDLE` or `SSL_CERT_FILE` names, as curl(1) does.
  ///   - proxy: the proxy for all requests; none by default.
  ///   - maximumIdleConnections: the maximum number of idle connections per loop.
  ///   - maximumTextBytes: the maximum length of a response. One event of the API can contain all of it.
  ///   - usesLibcurl: whether libcurl is used for `http://` URLs too. Only tests need it.
  ///   - isShortOfDescriptors: whether connections should be closed instead of reused. Called on a loop's thread.
  ///   - counts: counts the connections.
  ///   - key: returns the API key for each request; nil sends none. Called on a loop's thread. An error that it throws
  ///     fails the request as ``GeneratorError/Code/misconfigured`` and is logged.
  package init(
    baseURL: String, certificateFile: String? = nil, proxy: HTTPProxy = HTTPProxy(), maximumIdleConnections: Int = 64,
    maximumTextBytes: Int = 4 << 20, usesLibcurl: Bool = false,
    isShortOfDescriptors: @escaping @Sendable () -> Bool = { false }, counts: ConnectionCounts = ConnectionCounts(),
    key: @escaping @Sendable () throws -> String? = { nil }
  ) {
    let base = baseURL.prefix { $0 != "?" }
    query = baseURL[base.endIndex...]
    self.baseURL = String(base.hasSuffix("/") ? base.dropLast() : base)
    self.certificateFile = certificateFile
    self.proxy = proxy
    self.counts = counts
    self.maximumIdleConnections = maximumIdleConnections
    self.maximumTextBytes = maximumTextBytes
    self.usesLibcurl = usesLibcurl
    self.isShortOfDescriptors = isShortOfDescriptors
    self.key = key
  }

  package func start(_ prompt: Prompt, on reactor: Reactor) -> ModelOutput {
    let output = ModelOutput()
    let connections = connections(on: reactor)
    var request: HTTPRequest
    do throws(GeneratorError) {
      request = try self.request(
        "/chat/completions", headers: ["Content-Type: application/json", "Accept: text/event-stream"])
    } catch {
      output.fail(error)
      return output
    }
    guard prompt.isLarge else {
      request.body = Self.body(of: prompt)
      begin(request, choices: prompt.choices, output, connections, reactor)
      return output
    }
    reactor.spawn { [encoding] in
      request.body = await encoding.run { Self.body(of: prompt) }
      self.begin(request, choices: prompt.choices, output, connections, reactor)
    }
    return output
  }

  package nonisolated(nonsending) func models(on reactor: Reactor) async throws(GeneratorError) -> [JSON]? {
    let recent = modelList.withLock { $0 }
    if let recent, reactor.now - recent.at < Self.modelListAge { return recent.models }
    let request = try request("/models", headers: ["Accept: application/json"])
    let models = try await receiveModels(request, on: reactor)
    modelList.withLock { $0 = (models, reactor.now) }
    return models
  }

  /// Returns the objects of the API's list that have an id, unchanged. Empty if the API has no list.
  private nonisolated(nonsending) func receiveModels(
    _ request: HTTPRequest, on reactor: Reactor
  ) async throws(GeneratorError) -> [JSON] {
    let exchange = WholeExchange(request, connections(on: reactor), maximumBytes: 4 << 20, on: reactor)
    let (head, body) = try await exchange.response(within: .seconds(10))
    switch head.status {
    case 200..<300:
      guard case .array(let models)? = (try? JSON(parsing: body))?["data"] else { return [] }
      return models.filter { $0["id"]?.string != nil }
    case 404, 405, 501: return []
    default:
      throw GeneratorError(.failed, "The model server did not list its models.", detail: "status \(head.status)")
    }
  }

  package nonisolated(nonsending) func embeddings(
    _ body: [UInt8], within timeout: Duration, on reactor: Reactor
  ) async throws(GeneratorError) -> [UInt8]? {
    var request = try request(
      "/embeddings", headers: ["Content-Type: application/json", "Accept: application/json"])
    request.body = body
    let connections = connections(on: reactor)
    let key = request.bearerToken
    let exchange = WholeExchange(request, connections, maximumBytes: Self.maximumEmbeddingBytes, on: reactor)
    let (head, response) = try await exchange.response(within: timeout)
    guard (200..<300).contains(head.status), head.contentType.hasPrefix("application/json") else {
      throw GeneratorError(head, body: response, connections, key: key)
    }
    return response
  }

  package func retire(on reactor: Reactor) {
    isRetired.store(true, ordering: .relaxed)
    guard let connections: Connections = reactor.attachment(of: self) else { return }
    if connections.client.isIdle { return reactor.detach(self) }
    retireLater(on: reactor)
  }

  /// The values in the query of the base URL that can be secrets: an API version is none.
  private var queryValues: [String] {
    query.dropFirst().split(separator: "&").compactMap { field in
      let value = field.split(separator: "=", maxSplits: 1).dropFirst().first.map(String.init)
      return field.hasPrefix("api-version=") ? nil : value
    }
  }

  private func retireLater(on reactor: Reactor) {
    _ = reactor.schedule(after: .seconds(1)) { [weak reactor] in if let reactor { self.retire(on: reactor) } }
  }

  private func connections(on reactor: Reactor) -> Connections {
    reactor.attachment(for: self) {
      // A request that began before can still need it.
      if isRetired.load(ordering: .relaxed) { retireLater(on: reactor) }
      return Connections(
        client: client(on: reactor), baseURL: baseURL, chunks: ChunkParser(),
        secrets: [URLParts(baseURL)?.host ?? ""] + queryValues,
        isShortOfDescriptors: isShortOfDescriptors, maximumTextBytes: maximumTextBytes)
    }
  }

  /// Loads libcurl if it is used for a base URL: for TLS, HTTP/2, proxies and unusual URLs.
  ///
  /// - Returns: nil, or the reason why libcurl is needed and cannot be loaded.
  package static func missingLibrary(for baseURL: String, _ proxy: HTTPProxy) -> String? {
    guard plainOrigin(of: baseURL, proxy) == nil, let reason = unsafe clazy_load_curl() else { return nil }
    return unsafe String(cString: reason)
  }

  /// Returns the origin of a base URL that needs no libcurl.
  private static func plainOrigin(of baseURL: String, _ proxy: HTTPProxy) -> HTTPOrigin? {
    proxy.url == nil ? HTTPOrigin(baseURL) : nil
  }

  private func client(on reactor: Reactor) -> any HTTPClient {
    if !usesLibcurl, let origin = Self.plainOrigin(of: baseURL, proxy) {
      return PlainHTTPClient(
        origin, on: reactor, maximumIdleConnections: maximumIdleConnections, isShortOfDescriptors: isShortOfDescriptors,
        counts: counts)
    }
    return CurlMulti(
      CurlMulti.Server(baseURL: baseURL, certificateFile: certificateFile, proxy: proxy), on: reactor,
      maximumIdleConnections: maximumIdleConnections, counts: counts)
  }

  /// Returns a request to `path` below the base URL, with the API key.
  private func request(_ path: String, headers: [String]) throws(GeneratorError) -> HTTPRequest {
    var request = HTTPRequest(path: path + query, headers: headers)
    do {
      if let key = try key() { request.headers.append("Authorization: Bearer \(key)") }
    } catch let error as GeneratorError {
      throw error
    } catch {
      throw GeneratorError(.misconfigured, "The server is misconfigured.", detail: "\(error)")
    }
    return request
  }

  private func begin(
    _ request: consuming HTTPRequest, choices: Int, _ output: ModelOutput, _ connections: Connections,
    _ reactor: Reactor
  ) {
    // The output may have been cancelled while the request was encoded.
    guard !output.isFinished else { return }
    ChatCompletion(output, connections, choices: choices, reactor: reactor).begin(request)
  }

  /// The state of this generator on one loop.
  final class Connections {
    let client: any HTTPClient
    private let baseURL: String
    let chunks: ChunkParser
    /// The texts that no client must see: the model server's name or address, and the values in the query of its URL.
    let secrets: [String]
    let isShortOfDescriptors: @Sendable () -> Bool
    /// The maximum length of a response.
    let maximumTextBytes: Int

    init(
      client: any HTTPClient, baseURL: String, chunks: ChunkParser, secrets: [String],
      isShortOfDescriptors: @escaping @Sendable () -> Bool, maximumTextBytes: Int
    ) {
      self.secrets = secrets
      self.maximumTextBytes = maximumTextBytes
      self.client = client
      self.baseURL = baseURL
      self.chunks = chunks
      self.isShortOfDescriptors = isShortOfDescriptors
    }

    /// Starts an exchange that follows redirections. Returns nil if memory is exhausted or the URL is not valid.
    func start(
      _ request: consuming HTTPRequest, delegate: any HTTPExchangeDelegate, on reactor: Reactor
    ) -> (any HTTPExchange)? {
      FollowedExchange.start(request, client, baseURL: baseURL, delegate: delegate, on: reactor)
    }
  }

  /// Returns the request body, as defined by the API reference.
  private static func body(of prompt: Prompt) -> [UInt8] {
    var members: JSON.Members = [:]
    members["model"] = prompt.model.map(JSON.string)
    members["messages"] = prompt.messagesJSON
    members["max_tokens"] = prompt.maximumTokens.map(JSON.integer)
    members["stream"] = .bool(true)
    members["stream_options"] = ["include_usage": .bool(true)]
    members.append(prompt.parameters)
    return JSON.object(members).encoded
  }
}
