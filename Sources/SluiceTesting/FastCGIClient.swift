import EventLoop
import Foundation

/// A blocking FastCGI client that replaces the web server and can send records that a web server would not.
package final class FastCGIClient {
  private let descriptor: Descriptor
  /// The bytes received after the last response.
  private var unread: [UInt8] = []

  /// Creates a client that owns a connected socket.
  package init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  /// Creates a client connected to the AF_UNIX socket at `path`.
  package init(path: String) throws {
    let socket = try Descriptor(
      Foundation.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0), from: "create a socket")
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { bytes in
      for (index, byte) in path.utf8.enumerated() where index < bytes.count - 1 { unsafe bytes[index] = byte }
    }
    let result = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(socket.number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard result == 0 else { throw SystemError("connect to \(path)") }
    descriptor = socket
  }

  /// Returns a record (FastCGI specification, 3.3).
  package static func record(_ type: UInt8, id: UInt16 = 1, _ content: [UInt8] = [], padding: UInt8 = 0) -> [UInt8] {
    [
      1, type, UInt8(id >> 8), UInt8(id & 0xFF), UInt8(content.count >> 8), UInt8(content.count & 0xFF), padding, 0,
    ] + content + [UInt8](repeating: 0, count: Int(padding))
  }

  /// Returns the name-value pairs of a PARAMS stream (FastCGI specification, 3.4).
  package static func pairs(_ parameters: [(String, String)]) -> [UInt8] {
    func length(_ text: String) -> [UInt8] {
      let count = text.utf8.count
      return count < 128
        ? [UInt8(count)]
        : [UInt8(count >> 24) | 0x80, UInt8(count >> 16 & 0xFF), UInt8(count >> 8 & 0xFF), UInt8(count & 0xFF)]
    }
    return parameters.flatMap { length($0.0) + length($0.1) + Array($0.0.utf8) + Array($0.1.utf8) }
  }

  /// Returns all records of a request.
  package static func request(
    _ parameters: [(String, String)], body: [UInt8] = [], keepsConnection: Bool = false, id: UInt16 = 1
  ) -> [UInt8] {
    var bytes = record(1, id: id, [0, 1, keepsConnection ? 1 : 0, 0, 0, 0, 0, 0])
    bytes += record(4, id: id, pairs(parameters), padding: 3) + record(4, id: id)
    for start in stride(from: 0, to: body.count, by: 32_000) {
      bytes += record(5, id: id, Array(body[start..<min(body.count, start + 32_000)]))
    }
    return bytes + record(5, id: id)
  }

  @discardableResult
  package func send(_ bytes: [UInt8]) -> Bool { descriptor.sendAll(bytes) }

  /// A response, possibly incomplete: the output received before its end, or before a timeout.
  package struct Response: Sendable {
    package var output: [UInt8] = []
    /// Whether END_REQUEST was received.
    package var isEnded = false
    /// Whether the peer closed the connection.
    package var isClosed = false

    package var text: String { String(decoding: output, as: UTF8.self) }
  }

  /// Reads one response, until it ends, no data arrives for `timeout`, or what has been read contains `text`. The next
  /// call reads on from there.
  package func readResponse(until text: String? = nil, timeout: Duration = .seconds(10)) -> Response {
    var response = Response()
    var bytes = exchange(&unread, with: [])
    defer { unread = bytes }
    while true {
      while bytes.count >= 8 {
        let length = Int(bytes[4]) << 8 | Int(bytes[5])
        let total = 8 + length + Int(bytes[6])
        guard bytes.count >= total else { break }
        if bytes[1] == 6 { response.output += bytes[8..<(8 + length)] }
        let isEnd = bytes[1] == 3
        bytes.removeFirst(total)
        if isEnd {
          response.isEnded = true
          return response
        }
        if let text, response.text.contains(text) { return response }
      }
      guard let more = descriptor.receive(timeout: timeout) else { return response }
      if more.isEmpty {
        response.isClosed = true
        return response
      }
      bytes += more
    }
  }

  /// Returns all bytes until the connection is closed, or until nothing arrives within `limit`.
  package func readAll(within limit: Duration = .seconds(15)) -> [UInt8] {
    var bytes: [UInt8] = []
    while let more = descriptor.receive(timeout: limit), !more.isEmpty { bytes += more }
    return bytes
  }

  /// Returns whether the socket becomes readable within `limit`. Reads nothing.
  package func waitUntilReadable(within limit: Duration = .seconds(10)) -> Bool {
    var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, CInt(limit.roundedUpMilliseconds)) == 1
  }

  /// Returns whether the peer closes within `limit`. Reads nothing: POLLHUP is reported without being requested.
  package func waitUntilHangup(within limit: Duration = .seconds(10)) -> Bool {
    var request = pollfd(fd: descriptor.number, events: 0, revents: 0)
    return unsafe poll(&request, 1, CInt(limit.roundedUpMilliseconds)) == 1
  }

  /// Returns whether the peer closes the connection. Discards received data, and waits up to `limit` for each read.
  package func isClosed(within limit: Duration) -> Bool {
    guard let bytes = descriptor.receive(timeout: limit) else { return false }
    return bytes.isEmpty || isClosed(within: limit)
  }

  /// Closes the sending side only.
  package func shutdownSending() { shutdown(descriptor.number, Int32(SHUT_WR)) }
}
