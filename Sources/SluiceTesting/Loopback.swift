import EventLoop
import Glibc

/// TCP sockets on 127.0.0.1, for the servers and clients of tests and benchmarks.
package enum Loopback {
  /// Returns a listening socket on `port`; 0 lets the system choose one.
  package static func listen(port: UInt16 = 0) throws(SystemError) -> Descriptor {
    let socket = try makeSocket()
    setSocketOption(SO_REUSEADDR, of: socket.number)
    let result = unsafe withAddress(port: port) { address, length in unsafe bind(socket.number, address, length) }
    guard result == 0, Glibc.listen(socket.number, 4096) == 0 else { throw SystemError("listen on port \(port)") }
    return socket
  }

  /// Returns a connection to `port`.
  package static func connect(port: UInt16) throws(SystemError) -> Descriptor {
    let socket = try makeSocket()
    let result = unsafe withAddress(port: port) { address, length in
      unsafe Glibc.connect(socket.number, address, length)
    }
    guard result == 0 else { throw SystemError("connect to port \(port)") }
    disableNagle(of: socket.number)
    return socket
  }

  /// Returns the port to which a socket is bound.
  package static func port(of socket: borrowing Descriptor) -> UInt16 {
    var address = sockaddr_in()
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        _ = unsafe getsockname(socket.number, $0, &length)
      }
    }
    return UInt16(bigEndian: address.sin_port)
  }

  /// Returns a port that no socket is bound to, for a program that binds it soon.
  package static func freePort() throws(SystemError) -> UInt16 { port(of: try listen()) }

  private static func makeSocket() throws(SystemError) -> Descriptor {
    try Descriptor(
      socket(AF_INET, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0), from: "create a socket")
  }

  private static func withAddress(
    port: UInt16, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
  ) -> CInt {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    return unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }
}

/// Blocking reads and writes, for the straight-line code of tests.
extension Descriptor {
  /// Writes all of `bytes`. Returns false if the connection is closed.
  @discardableResult
  package borrowing func sendAll(_ bytes: [UInt8]) -> Bool {
    var sent = 0
    while sent < bytes.count {
      let count = unsafe bytes[sent...].withUnsafeBytes { buffer in
        unsafe send(number, buffer.baseAddress, buffer.count, CInt(MSG_NOSIGNAL))
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return false }
      sent += count
    }
    return true
  }

  /// Returns the available bytes, at least one. Returns an empty array if the connection was closed or reset, and nil
  /// if nothing arrives within `timeout`.
  package borrowing func receive(timeout: Duration = .seconds(10)) -> [UInt8]? {
    var request = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
    guard unsafe poll(&request, 1, CInt(timeout.roundedUpMilliseconds)) == 1 else { return nil }
    var buffer = [UInt8](repeating: 0, count: 16 * 1024)
    let count = unsafe read(number, &buffer, buffer.count)
    return Array(buffer.prefix(max(0, count)))
  }
}
