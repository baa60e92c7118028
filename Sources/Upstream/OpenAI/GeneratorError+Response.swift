import JSON

extension GeneratorError {
  /// Creates the error for a response that is none of a model: with another status than 2xx, or with another body.
  ///
  /// - Parameters:
  ///   - body: the beginning of the body.
  ///   - key: the API key of the request, which no client must see.
  init(_ head: HTTPResponseHead, body: [UInt8], _ connections: OpenAIGenerator.Connections, key: Substring?) {
    let status = head.status
    // Only the error's kind is logged, because its message can contain the user's text.
    let kind = connections.chunks.read(body.span)?.errorKind ?? ""
    let detail = "status \(status)" + (kind.isEmpty ? "" : ", \(kind)")
    if status == 429 {
      self.init(
        .rateLimited, "The model server is rate limiting requests.", detail: detail, retryAfter: head.retryAfter)
      return
    }
    if (200..<300).contains(status) {
      // HTML means that the URL is that of a web page.
      let type = head.contentType.prefix { $0 != ";" }.prefix(64)
      self.init(
        .failed, "The model server did not return an event stream.",
        detail: detail + ", Content-Type " + (type.isEmpty ? "missing" : type))
      cause = .notStreaming
      return
    }
    if (300..<400).contains(status) {
      self.init(
        .failed, "The model server redirects to another address.", detail: detail + ": change SLUICE_UPSTREAM_URL")
      isRetriable = false
      return
    }
    self.init(.failed, "The model server returned status \(status).", detail: detail, retryAfter: head.retryAfter)
    switch status {
    case 401, 403: cause = .unauthorized
    case 404: cause = .model
    default: if kind.contains("model") { cause = .model }
    }
    // A 4xx is permanent, except 408 and 409, which depend on timing. Another Sluice says it itself.
    isRetriable = !(400..<500).contains(status) || status == 408 || status == 409
    let json = try? JSON(parsing: body)
    if case .bool(let isRetriable)? = json?["error"]?["retriable"] { self.isRetriable = isRetriable }
    if [400, 404, 413, 422].contains(status) {
      refusal = Refusal(status, json, hiding: connections.secrets + [key.map(String.init) ?? ""])
    }
  }
}

extension GeneratorError.Refusal {
  /// Creates a refusal from an error object, without texts that contain a secret or an address.
  ///
  /// - Parameter secrets: texts that no client must see. Empty ones are none.
  fileprivate init(_ status: Int, _ json: JSON?, hiding secrets: [String]) {
    func shown(_ text: String?, maximumCount: Int = 200) -> String? {
      guard let text, !text.hasAddress, !secrets.contains(where: { !$0.isEmpty && text.contains($0) }) else {
        return nil
      }
      return String(text.prefix(maximumCount))
    }
    let error = json?["error"] ?? json
    // FastAPI's servers list what is wrong with a request.
    let details = json?["detail"]?.array?.compactMap { $0["msg"]?.string }.joined(separator: "; ")
    let text = error?["message"]?.string ?? error?.string ?? json?["detail"]?.string ?? details
    let code: JSON? =
      switch error?["code"] {
      case .string(let text)?: shown(text).map(JSON.string)
      case .integer(let number)?: .integer(number)
      default: nil
      }
    self.init(
      status: status, message: shown(text, maximumCount: 4096), type: shown(error?["type"]?.string), code: code,
      param: shown(error?["param"]?.string))
  }
}

extension String {
  /// Whether the text has an address of a machine: localhost, or four numbers between dots.
  fileprivate var hasAddress: Bool {
    if contains("localhost") { return true }
    let runs = split { !($0.isASCII && $0.isNumber) && $0 != "." }
    return runs.contains { run in
      let numbers = run.split(separator: ".", omittingEmptySubsequences: false)
      return numbers.count >= 4 && numbers.prefix(4).allSatisfy { UInt8($0) != nil }
    }
  }
}
