import CLazyLibraries
import CZlib

/// A decoder of bodies with the coding `gzip` or `deflate` (RFC 9110, 8.4.1), which arrive in parts.
@safe
final class Inflater {
  /// The error of a body that is not of such a coding.
  struct Malformed: Error {}

  // At a fixed address, because zlib's state refers back to it.
  private let stream: UnsafeMutablePointer<z_stream>
  private var isAtEnd = false
  /// Whether a body has ended, and nothing has been decoded since.
  private var canEnd = false

  /// The maximum size of a decoded part.
  private static let partBytes = 16 * 1024

  /// Returns nil if zlib cannot be loaded.
  init?() {
    guard unsafe clazy_load_zlib() == nil else { return nil }
    unsafe stream = .allocate(capacity: 1)
    unsafe stream.initialize(to: z_stream())
    // 32 stands for either header, of gzip or of zlib (zlib.h).
    let result = unsafe inflateInit2_(
      stream, MAX_WBITS + 32, ZLIB_VERSION, CInt(MemoryLayout<z_stream>.size))
    guard result == Z_OK else {
      unsafe stream.deallocate()
      return nil
    }
  }

  deinit {
    unsafe inflateEnd(stream)
    unsafe stream.deallocate()
  }

  /// Decodes the next part of the body, of at most 16 KiB.
  ///
  /// - Parameter emit: called with the part, unless it is empty.
  /// - Returns: the number of bytes of `input` that have been used, and whether there can be another part without more
  ///   input.
  func decode(
    _ input: borrowing Span<UInt8>, emit: (borrowing Span<UInt8>) -> Void
  ) throws(Malformed) -> (used: Int, hasMore: Bool) {
    // Several bodies can follow one another (RFC 1952, 2.2).
    if isAtEnd, input.count > 0, unsafe inflateReset(stream) == Z_OK { isAtEnd = false }
    if isAtEnd { return (input.count, false) }
    var (isBroken, rest, isFull) = (false, 0, false)
    // Safe: zlib only reads its input, and the pointers are not used after the call.
    unsafe input.withUnsafeBufferPointer { bytes in
      unsafe withUnsafeTemporaryAllocation(of: UInt8.self, capacity: Self.partBytes) { part in
        unsafe stream.pointee.next_in = UnsafeMutablePointer(mutating: bytes.baseAddress)
        unsafe stream.pointee.avail_in = UInt32(clamping: bytes.count)
        unsafe stream.pointee.next_out = part.baseAddress
        unsafe stream.pointee.avail_out = UInt32(part.count)
        let result = unsafe inflate(stream, Z_SYNC_FLUSH)
        rest = unsafe bytes.count - Int(UInt32(clamping: bytes.count)) + Int(stream.pointee.avail_in)
        unsafe stream.pointee.next_in = nil
        isAtEnd = result == Z_STREAM_END
        isBroken = ![Z_OK, Z_STREAM_END, Z_BUF_ERROR].contains(result)
        let count = unsafe part.count - Int(stream.pointee.avail_out)
        isFull = count == part.count
        if isBroken, canEnd, count == 0 {
          // The bytes after the end are none of a body: padding, which gzip(1) ignores too.
          (isBroken, isAtEnd, rest) = (false, true, 0)
        }
        canEnd = isAtEnd || canEnd && count == 0
        if count > 0 { unsafe emit(UnsafeBufferPointer(rebasing: part[..<count]).span) }
      }
    }
    if isBroken { throw Malformed() }
    return (input.count - rest, isFull || rest > 0)
  }
}
