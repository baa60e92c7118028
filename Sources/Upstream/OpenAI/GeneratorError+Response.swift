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
      let secrets = [key.map(String.init) ?? "", connections.host].filter { !$0.isEmpty }
      refusal = Refusal(status, json, hiding: secrets)
    }
  }
}

extension GeneratorError.Refusal {
  /// Creates a refusal from an error object, without a message that contains one of `secrets`.
  fileprivate init(_ status: Int, _ json: JSON?, hiding secrets: [String]) {
    let error = json?["error"] ?? json
    let text = error?["message"]?.string ?? error?.string ?? json?["detail"]?.string
    let code: JSON? =
      switch error?["code"] {
      case .string(let text)?: .string(text)
      case .integer(let number)?: .integer(number)
      default: nil
      }
    self.init(
      status: status,
      message: text.flatMap { text in secrets.contains(where: text.contains) ? nil : String(text.prefix(4096)) },
      type: error?["type"]?.string, code: code, param: error?["param"]?.string)
  }
}
