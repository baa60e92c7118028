import EventLoop
import FastCGI

extension Failure {
  /// The refusal: status, the header fields that go with it, and a JSON body.
  var response: Response {
    var head = ResponseHead(status: code.status)
    head.set("Content-Type", "application/json")
    head.set("Cache-Control", "no-store")
    if code == .unauthorized { head.set("WWW-Authenticate", "Bearer") }
    if let retryAfter {
      head.set("Retry-After", FieldValue(Int((retryAfter.roundedUpMilliseconds + 999) / 1000)))
    }
    if !allowedMethods.isEmpty, let methods = FieldValue(allowedMethods.joined(separator: ", ")) {
      head.set("Allow", methods)
    }
    if let alternate, let link = FieldValue("<\(alternate)>; rel=\"alternate\"") { head.set("Link", link) }
    return Response(head, body: JSON.object(["error": json]).encoded + [0x0A])
  }
}

extension Response {
  /// A JSON answer, ended by a newline.
  static func json(_ json: JSON, status: Int = 200) -> Response {
    var head = ResponseHead(status: status)
    head.set("Content-Type", "application/json")
    head.set("Cache-Control", "no-store")
    return Response(head, body: json.encoded + [0x0A])
  }
}
