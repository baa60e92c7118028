import CLinux
import Glibc

/// The owner of one open file descriptor: it is closed exactly once, when its owner goes.
///
/// The corresponding C function is `close` (close(2)). An error of `close` is not reported: on Linux the descriptor
/// is gone whatever it says.
package struct Descriptor: ~Copyable, Sendable {
  /// The number, for system calls while this owner lives.
  package let number: CInt

  /// Takes over an open descriptor. Nobody else may close it from here on.
  package init(owning number: CInt) {
    precondition(number >= 0, "a descriptor is not negative")
    self.number = number
  }

  /// Takes over what a system call returned, or throws its `errno`.
  package init(_ result: CInt, from action: @autoclosure () -> String) throws(SystemError) {
    guard result >= 0 else { throw SystemError(action()) }
    self.number = result
  }

  /// Gives the number away, unclosed: the caller owns it now.
  package consuming func release() -> CInt {
    let number = number
    discard self
    return number
  }

  deinit { close(number) }
}

extension Descriptor {
  /// Accepts a connection of a listening socket (accept4(2)), closed on exec.
  ///
  /// - Returns: its descriptor, for the caller to own; -1 with errno when there is none.
  package borrowing func accept() -> CInt { clinux_accept(number) }

  /// Locks one byte of a file for this open file, which loses it when it is closed (F_OFD_SETLK, fcntl(2)). Does not wait.
  ///
  /// - Returns: false, with errno, when it is another's.
  package borrowing func lockByte(at index: Int) -> Bool { clinux_lock_byte(number, off_t(index)) == 0 }
}
