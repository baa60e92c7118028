import CLazyLibraries
import CSystemd
import Glibc
import JSON

/// An entry of systemd's journal: the line of the log, and its fields as `SLUICE_STREAM=` for `stream`, so that
/// journalctl(1) can select by them (systemd.journal-fields(7)).
struct JournalEntry: Sendable {
  /// The fields as `NAME=value`, one after the other.
  private var bytes: [UInt8] = []
  private var lengths: [Int] = []

  init(_ line: [UInt8], _ level: Log.Level, _ members: JSON.Members) {
    append("MESSAGE", line)
    append("PRIORITY", Array("\(level.priority)".utf8))
    append("SYSLOG_IDENTIFIER", Array("sluice".utf8))
    for member in members.all where member.value != .null {
      append(Self.name(of: member.name), member.value.string.map { Array($0.utf8) } ?? member.value.encoded)
    }
  }

  private mutating func append(_ name: String, _ value: [UInt8]) {
    let field = Array((name + "=").utf8) + value
    bytes += field
    lengths.append(field.count)
  }

  /// Returns the name of a field: `SLUICE_FIRST_TOKEN_MS` for `firstTokenMs`.
  static func name(of member: String) -> String {
    var name = "SLUICE_"
    for character in member {
      if character.isUppercase { name += "_" }
      name += character.uppercased()
    }
    return name
  }

  /// Sends the entry (sd_journal_sendv(3)). Blocks while the journal does not accept it. Nothing can be logged about a
  /// failure.
  func send() {
    var bytes = bytes
    unsafe bytes.withUnsafeMutableBytes { buffer in
      var start = 0
      let vectors = unsafe lengths.map { length in
        defer { start += length }
        // Safe: the lengths add up to the buffer's.
        return unsafe iovec(iov_base: buffer.baseAddress.map { unsafe $0 + start }, iov_len: length)
      }
      unsafe sd_journal_sendv(vectors, CInt(vectors.count))
    }
  }

  /// Returns whether a descriptor is the journal, which `JOURNAL_STREAM` names (systemd.exec(5)), and can be sent entries.
  static func isJournal(_ descriptor: CInt, _ stream: String?) -> Bool {
    var status = stat()
    guard let stream, unsafe fstat(descriptor, &status) == 0, stream == "\(status.st_dev):\(status.st_ino)" else {
      return false
    }
    return unsafe clazy_load_systemd() == nil
  }
}
