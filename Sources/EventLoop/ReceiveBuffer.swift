import Glibc

/// A buffer for the bytes that one recv(2) or read(2) returns, shared by all sockets and pipes of a loop. Belongs to its loop.
@safe
package final class ReceiveBuffer {
  private let buffer: UnsafeMutableBufferPointer<UInt8>
  private var isInUse = false

  /// The maximum number of bytes per call.
  package static let capacity = 64 * 1024

  init() {
    let buffer = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: Self.capacity)
    unsafe buffer.initialize(repeating: 0)
    unsafe self.buffer = unsafe buffer
  }

  deinit { unsafe buffer.deallocate() }

  /// Reads from a socket without blocking (recv(2)), and calls `body` with the bytes, which are valid only during the
  /// call. `body` must not receive.
  ///
  /// - Returns: the result of recv(2): 0 at the end of the stream, or -1 with `errno`.
  @inline(always) package func receive(from number: CInt, _ body: (borrowing Span<UInt8>) -> Void) -> Int {
    precondition(!isInUse, "the receive buffer is in use")
    return use(unsafe recv(number, buffer.baseAddress, buffer.count, CInt(MSG_DONTWAIT)), body)
  }

  /// Reads from a non-blocking pipe (read(2)), like ``receive(from:_:)``.
  package func read(from number: CInt, _ body: (borrowing Span<UInt8>) -> Void) -> Int {
    precondition(!isInUse, "the receive buffer is in use")
    return use(unsafe Glibc.read(number, buffer.baseAddress, buffer.count), body)
  }

  @inline(always) private func use(_ count: Int, _ body: (borrowing Span<UInt8>) -> Void) -> Int {
    guard count > 0 else { return count }
    isInUse = true
    // Safe: nothing else writes to the buffer while it is in use, and the span does not outlive the call.
    unsafe body(UnsafeBufferPointer(rebasing: buffer[..<count]).span)
    isInUse = false
    return count
  }
}
