import CLinux
import Glibc

/// An in-memory file (memfd_create(2)) that passes bytes to a library that reads from a descriptor. Reading it never
/// waits for a peer.
///
/// Must be used by one thread at a time. It is closed when it is deallocated.
package final class MemoryFile {
  private let descriptor: Descriptor
  /// The size of the file; the maximum if it is not known.
  private var size = 0

  /// - Throws: `EMFILE` or `ENFILE` when no descriptor is available, `ENOMEM` when no memory is.
  package init() throws(SystemError) { descriptor = try Descriptor(clinux_memory_file(), from: "memfd_create") }

  /// Replaces the content with `bytes` and returns a descriptor positioned at the start. The caller owns the
  /// descriptor. All descriptors of this file share one position, so use one at a time.
  ///
  /// - Throws: `ENOSPC` or `ENOMEM` when no memory is available, `EMFILE` when no descriptor is.
  package func open(_ bytes: [UInt8]) throws(SystemError) -> CInt {
    let number = descriptor.number
    guard unsafe pwrite(number, bytes, bytes.count, 0) == bytes.count,
      bytes.count >= size || ftruncate(number, bytes.count) == 0, lseek(number, 0, SEEK_SET) == 0
    else {
      size = .max
      throw SystemError("write a request into memory")
    }
    size = bytes.count
    let duplicate = fcntl(number, F_DUPFD_CLOEXEC, 0)
    guard duplicate >= 0 else { throw SystemError("read a request from memory") }
    return duplicate
  }
}
