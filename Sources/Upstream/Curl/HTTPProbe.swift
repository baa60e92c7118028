import CCurl
import CLazyLibraries
import EventLoop
import Glibc

/// One GET request that records when the parts of its response arrive, for diagnosis. Blocks.
@safe
package final class HTTPProbe {
  /// The status; 0 if no response arrived.
  package private(set) var status = 0
  /// The header fields, with their names in lower case. Of several with one name, the last one.
  package private(set) var fields: [String: String] = [:]
  /// The parts of the body, each with the time from the start of the request.
  package private(set) var parts: [(at: Duration, bytes: [UInt8])] = []
  /// The time from the start of the request to its end.
  package private(set) var duration: Duration = .zero
  /// The reason why the response is not complete; nil if it is.
  package private(set) var failure: String?

  private let start = ContinuousClock.now
  private static let maximumBytes = 4 << 20

  package var body: [UInt8] { parts.flatMap(\.bytes) }

  /// Sends the request, and waits for the end of the response. Proxies are read from the environment
  /// (libcurl-env(3)).
  ///
  /// - Parameters:
  ///   - headers: complete header lines.
  ///   - limit: the maximum duration.
  package init(_ url: String, headers: [String], limit: Duration) {
    if let reason = unsafe clazy_load_curl() {
      failure = "libcurl cannot be loaded: \(unsafe String(cString: reason))"
      return
    }
    guard let easy = unsafe curl_easy_init() else {
      failure = "out of memory"
      return
    }
    defer { unsafe curl_easy_cleanup(easy) }
    var list: UnsafeMutablePointer<curl_slist>?
    for header in headers { unsafe list = curl_slist_append(list, header) ?? list }
    defer { unsafe curl_slist_free_all(list) }
    unsafe ccurl_set_string(easy, CURLOPT_URL, url)
    unsafe ccurl_set_string(easy, CURLOPT_PROTOCOLS_STR, "http,https")
    unsafe ccurl_set_string(easy, CURLOPT_USERAGENT, "sluice-doctor")
    unsafe ccurl_set_pointer(easy, CURLOPT_HTTPHEADER, list)
    unsafe ccurl_set_long(easy, CURLOPT_NOSIGNAL, 1)
    unsafe ccurl_set_long(easy, CURLOPT_CONNECTTIMEOUT, 10)
    unsafe ccurl_set_long(easy, CURLOPT_TIMEOUT, Int(limit.components.seconds))
    // Safe: libcurl uses the pointer only during curl_easy_perform.
    let context = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe ccurl_set_pointer(easy, CURLOPT_WRITEDATA, context)
    unsafe ccurl_set_callback(easy, CURLOPT_WRITEFUNCTION) { bytes, _, count, context in
      guard let bytes = unsafe bytes, let context = unsafe context else { return 0 }
      let buffer = unsafe UnsafeRawBufferPointer(start: bytes, count: count)
      return unsafe Unmanaged<HTTPProbe>.fromOpaque(context).takeUnretainedValue().receive(Array(buffer)) ? count : 0
    }
    unsafe ccurl_set_pointer(easy, CURLOPT_HEADERDATA, context)
    unsafe ccurl_set_callback(easy, CURLOPT_HEADERFUNCTION) { bytes, _, count, context in
      guard let bytes = unsafe bytes, let context = unsafe context else { return 0 }
      let line = unsafe String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
      unsafe Unmanaged<HTTPProbe>.fromOpaque(context).takeUnretainedValue().receiveHeader(line)
      return count
    }
    let code = unsafe curl_easy_perform(easy)
    duration = .now - start
    if code != CURLE_OK { failure = unsafe String(cString: curl_easy_strerror(code)) }
  }

  private func receive(_ bytes: [UInt8]) -> Bool {
    parts.append((ContinuousClock.now - start, bytes))
    return parts.reduce(0) { $0 + $1.bytes.count } <= Self.maximumBytes
  }

  private func receiveHeader(_ line: String) {
    let line = line.filter { !$0.isNewline }
    if line.hasPrefix("HTTP/") {
      // The head of a further response, after 100 (Continue) for example.
      status = line.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
      fields = [:]
    } else if let colon = line.firstIndex(of: ":") {
      let value = line[line.index(after: colon)...].drop { $0 == " " || $0 == "\t" }
      fields[line[..<colon].lowercased()] = String(value)
    }
  }

  /// The number of seconds by which the server's clock is ahead of this machine's; nil if it sent no valid `Date`.
  package var clockDifference: Int? {
    guard let text = fields["date"] else { return nil }
    let date = unsafe curl_getdate(text, nil)
    return date < 0 ? nil : date - time(nil)
  }
}

extension ContinuousClock.Instant {
  fileprivate static func - (end: Self, start: Self) -> Duration { start.duration(to: end) }
}
