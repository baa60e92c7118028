import Glibc

/// A system call that failed: which one, on what, and why.
package struct SystemError: Error, Equatable, CustomStringConvertible {
  /// What was being done, as a person would say it: `"open /etc/sluice/tokens"`.
  package let action: String
  /// The `errno` it failed with (errno(3)).
  package let code: CInt

  package init(_ action: String, code: CInt = errno) {
    self.action = action
    self.code = code
  }

  /// The text of ``code`` (strerror(3)): `"Permission denied"`.
  package var reason: String {
    var text = [CChar](repeating: 0, count: 256)
    // The XSI form, which is what Swift sees: it writes at most `count` bytes, NUL included.
    unsafe strerror_r(code, &text, text.count)
    return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
  }

  package var description: String { "\(action): \(reason)" }
}
