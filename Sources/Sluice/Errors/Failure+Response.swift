import EventLoop
import FastCGI
import JSON

extension Failure {
  /// ``retryAfter`` in seconds, rounded up.
  var retryAfterSeconds: Int? { retryAfter.map { Int(($0.roundedUpMilliseconds + 999) / 1000) } }

  /// Returns the error response: the status, its header fields, and a JSON body, in OpenAI's format for paths under
  /// `/v1/`.
  func response(to request: Request) -> Response {
    var head = ResponseHead(status: refusal?.status ?? code.status)
    head.set("Content-Type", "application/json")
    head.set("Cache-Control", "no-store")
    if code == .unauthorized { head.set("WWW-Authenticate", "Bearer") }
    if let retryAfterSeconds { head.set("Retry-After", FieldValue(retryAfterSeconds)) }
    if !allowedMethods.isEmpty, let methods = FieldValue(allowedMethods.joined(separator: ", ")) {
      head.set("Allow", methods)
    }
    if let streamID, let id = FieldValue(streamID) { head.set("Sluice-Stream-Id", id) }
    if let alternate, let link = FieldValue("<\(alternate)>; rel=\"alternate\"") { head.set("Link", link) }
    let error = request.path.hasPrefix("/v1/") ? openAIJSON : json
    return Response(head, body: JSON.object(["error": error]).encoded + [0x0A])
  }
}

extension Response {
  /// Returns a plain-text response.
  public static func text(_ text: String, status: Int = 200) -> Response {
    var head = ResponseHead(status: status)
    head.set("Content-Type", "text/plain; charset=utf-8")
    head.set("Cache-Control", "no-store")
    return Response(head, body: Array(text.utf8))
  }

  /// Returns a JSON response, terminated by a newline.
  public static func json(_ json: JSON, status: Int = 200) -> Response {
    var head = ResponseHead(status: status)
    head.set("Content-Type", "application/json")
    head.set("Cache-Control", "no-store")
    return Response(head, body: json.encoded + [0x0A])
  }
}
