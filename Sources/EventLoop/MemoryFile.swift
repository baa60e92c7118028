import CLinux
import Glibc

/// A file in memory (memfd_create(2)), for giving bytes to a library that reads from a descriptor: reading it never
/// waits for a peer.
///
/// One thread at a time uses it. It is closed with its owner.
package final class MemoryFile {
  private let descriptor: Descriptor

  /// - Throws: `EMFILE` or `ENFILE` when no descriptor is available, `ENOMEM` without memory.
  package init() throws(SystemError) { descriptor = try Descriptor(clinux_memory_file(), from: "memfd_create") }

  /// Replaces the content with `bytes` and returns a descriptor that reads it from its start. The caller owns the
  /// descriptor; it shares its position with every other one of this file, so use one at a time.
  ///
  /// - Throws: `ENOSPC` or `ENOMEM` without memory, `EMFILE` without a descriptor.
  package func open(_ bytes: [UInt8]) throws(SystemError) -> CInt {
    let number = descriptor.number
    guard unsafe pwrite(number, bytes, bytes.count, 0) == bytes.count, ftruncate(number, bytes.count) == 0,
      lseek(number, 0, SEEK_SET) == 0
    else { throw SystemError("write a request into memory") }
    let duplicate = fcntl(number, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { throw SystemError("read a request from memory") }
    return duplicate
  }
}
