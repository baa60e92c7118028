import Glibc

/// A failed system call, with the attempted action and the reason.
package struct SystemError: Error, Equatable, CustomStringConvertible {
  /// The attempted action, in plain words, such as `"open /etc/sluice/tokens"`.
  package let action: String
  /// The `errno` of the call (errno(3)).
  package let code: CInt

  package init(_ action: String, code: CInt = errno) {
    self.action = action
    self.code = code
  }

  /// The text of ``code`` (strerror(3)): `"Permission denied"`.
  package var reason: String {
    var text = [CChar](repeating: 0, count: 256)
    // Swift imports the XSI variant, which writes at most `count` bytes, including the NUL.
    unsafe strerror_r(code, &text, text.count)
    return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  package var description: String { "\(action): \(reason)" }
}
