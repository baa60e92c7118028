import Bytes
import CCurl
import EventStream
import Glibc

/// The relevant parts of a response head.
struct HTTPResponseHead: Sendable, Equatable {
  var status = 0
  /// The value of `Content-Type`, in lower case.
  var contentType = ""
  /// The delay that the server requested: `Retry-After` in either of its forms (RFC 9110, 10.2.3).
  var retryAfter: Duration?
  /// The coding of the body besides `chunked`, although none was requested.
  var coding = Coding.none
  /// The value of `Location`.
  var location: String?

  enum Coding {
    case none
    /// `gzip` or `deflate`, which ``Inflater`` decodes.
    case deflated
    case unknown
  }

  /// Reads one field.
  ///
  /// - Parameters:
  ///   - name: the name, in lower case.
  ///   - value: the value, without the whitespace around it.
  mutating func readField(name: borrowing Span<UInt8>, value: borrowing Span<UInt8>) {
    if name.equals("content-type") {
      contentType = String(decodingUTF8: value).lowercased()
    } else if name.equals("retry-after") {
      retryAfter = Self.delay(String(decodingUTF8: value))
    } else if name.equals("location") {
      location = String(decodingUTF8: value)
    } else if name.equals("transfer-encoding") || name.equals("content-encoding") {
      let codings = String(decodingUTF8: value).lowercased().split { $0 == "," || $0 == " " || $0 == "\t" }
        .filter { $0 != "chunked" && $0 != "identity" }
      if codings.isEmpty { return }
      let isDeflated = coding == .none && codings.count == 1 && ["gzip", "x-gzip", "deflate"].contains(codings[0])
      coding = isDeflated && name.equals("content-encoding") ? .deflated : .unknown
    }
  }

  /// Returns the delay in a `Retry-After` value, at most one day: a longer one is of no use to a client.
  private static func delay(_ text: String) -> Duration? {
    var seconds = Int(text)
    if seconds == nil {
      // curl_getdate(3) reads all forms of HTTP dates.
      let date = unsafe curl_getdate(text, nil)
      if date >= 0 { seconds = date - time(nil) }
    }
    return seconds.map { .seconds(min(max($0, 0), 86_400)) }
  }
}
