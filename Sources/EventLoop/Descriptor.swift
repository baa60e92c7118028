import CLinux
import Glibc

/// The owner of one open file descriptor, which it closes exactly once, when it is destroyed.
///
/// Errors of close(2) are ignored: Linux releases the descriptor even if `close` fails.
package struct Descriptor: ~Copyable, Sendable {
  /// The descriptor number, valid for system calls while this owner exists.
  package let number: CInt

  /// Takes ownership of an open descriptor. No other code must close it afterwards.
  package init(owning number: CInt) {
    precondition(number >= 0, "a descriptor is not negative")
    self.number = number
  }

  /// Takes ownership of the descriptor that a system call returned, or throws its `errno`.
  package init(_ result: CInt, from action: @autoclosure () -> String) throws(SystemError) {
    guard result >= 0 else { throw SystemError(action()) }
    self.number = result
  }

  /// Returns the number without closing it. The caller takes ownership.
  package consuming func release() -> CInt {
    let number = number
    discard self
    return number
  }

  deinit { close(number) }
}

extension Descriptor {
  /// Accepts a connection on a listening socket (accept4(2)); its descriptor is closed on exec.
  ///
  /// - Returns: the descriptor, which the caller owns, or -1 with `errno`.
  package borrowing func accept() -> CInt { clinux_accept(number) }

  /// Locks one byte of a file for this open file description, until it is closed (F_OFD_SETLK, fcntl(2)). Never waits.
  ///
  /// - Returns: false, with `errno`, if another open file description holds the lock.
  package borrowing func lockByte(at index: Int) -> Bool { clinux_lock_byte(number, off_t(index)) == 0 }
}

/// Sets a socket option whose value is an integer (setsockopt(2)).
///
/// - Returns: whether the socket has the option.
@discardableResult
package func setSocketOption(_ name: CInt, of number: CInt, level: CInt = SOL_SOCKET, to value: CInt = 1) -> Bool {
  var value = value
  return unsafe setsockopt(number, level, name, &value, socklen_t(MemoryLayout<CInt>.size)) == 0
}

/// Disables Nagle's algorithm (tcp(7)), so that small writes are sent at once.
///
/// - Returns: false if the socket is not a TCP socket.
@discardableResult
package func disableNagle(of number: CInt) -> Bool {
  setSocketOption(TCP_NODELAY, of: number, level: CInt(IPPROTO_TCP))
}
