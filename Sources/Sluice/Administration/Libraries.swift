import CCurl
import CLazyLibraries
import CLinux
import CPCRE2
import CSimdJSON
import Glibc

/// The libraries that the program uses, as they are on this machine.
package enum Libraries {
  /// The libraries with their versions, or with the reason why one cannot be loaded.
  package static var versions: [String] {
    [fastCGI, curl, "simdjson \(unsafe String(cString: csimdjson_version()))", pcre2]
  }

  /// libfcgi has no function for its version, but its file name contains it.
  private static var fastCGI: String {
    var path = [CChar](repeating: 0, count: Int(PATH_MAX))
    guard unsafe clinux_library_path("FCGX_Init", &path) else { return "libfcgi" }
    return text(path).split(separator: "/").last.map(String.init) ?? "libfcgi"
  }

  private static var curl: String {
    if let reason = unsafe clazy_load_curl() { return "libcurl (not available: \(unsafe String(cString: reason)))" }
    return unsafe String(cString: curl_version())
  }

  private static var pcre2: String {
    if let reason = unsafe clazy_load_pcre2() { return "PCRE2 (not available: \(unsafe String(cString: reason)))" }
    var text = [CChar](repeating: 0, count: 64)
    guard unsafe pcre2_config_8(UInt32(PCRE2_CONFIG_VERSION), &text) > 0 else { return "PCRE2" }
    return "PCRE2 " + self.text(text)
  }

  private static func text(_ bytes: [CChar]) -> String {
    String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}
