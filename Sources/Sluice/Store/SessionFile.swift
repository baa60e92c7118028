import CLinux
import EventLoop
import Glibc
import JSON

/// One session's turns: a file of JSON lines, appended to under a lock. Everything here blocks.
struct SessionFile: Sendable {
  let path: String

  /// Appends `turn` and syncs it: when this returns, a power cut does not lose it.
  ///
  /// It is one write(2) to a file opened for append, under flock(2), so several processes may do it. A torn last line
  /// is cut off before. After a failure the file is as it was; calling again with the same turn never stores it
  /// twice.
  func append(_ turn: Turn) throws(SystemError) {
    let descriptor = try openLocked()
    var size = try self.size(descriptor)
    let tail = try lastLine(descriptor, size: size)
    if tail.isTorn {
      size -= tail.bytes.count
      try truncate(descriptor, to: size)
    } else if Turn(line: tail.bytes)?.id == turn.id {
      // A try before this one failed only after it had written.
      try sync(descriptor)
      return try syncFolder(above: path)
    }
    let line = turn.line
    let written = unsafe write(descriptor.number, line, line.count)
    guard written == line.count else {
      let error = SystemError("write \(path)", code: written < 0 ? errno : ENOSPC)
      try? truncate(descriptor, to: size)
      throw error
    }
    do {
      try sync(descriptor)
    } catch {
      try? truncate(descriptor, to: size)
      throw error
    }
    if size == 0 { try syncFolder(above: path) }
  }

  /// The newest turns of a page, oldest first. A line that is no turn is passed over. Nil when there is no file.
  func turns(_ page: Page) throws(SystemError) -> [Turn]? {
    let number = unsafe open(path, O_RDONLY | O_CLOEXEC)
    if number < 0, errno == ENOENT { return nil }
    let descriptor = try Descriptor(number, from: "open \(path)")
    var turns: [Turn] = []
    // With a turn named that they are to come before: not until it was met, on the way from the end.
    var isInPage = page.before == nil
    func take(_ line: some Collection<UInt8>) {
      guard let turn = Turn(line: line) else { return }
      if isInPage { turns.append(turn) }
      if turn.id == page.before { isInPage = true }
    }
    // From the end, block by block, so that a long session costs no more than a short one.
    var end = try size(descriptor)
    var rest: [UInt8] = []
    var isLast = true
    while end > 0, turns.count < page.limit {
      let start = max(0, end - 64 * 1024)
      rest = try readBytes(descriptor, start..<end) + rest
      end = start
      if isLast, let newline = rest.lastIndex(of: 0x0A) {
        // What follows the last line end is torn: it was never promised.
        rest.removeLast(rest.count - newline - 1)
        isLast = false
      }
      while !isLast, let newline = rest.dropLast().lastIndex(of: 0x0A) {
        take(rest[(newline + 1)...])
        rest.removeLast(rest.count - newline - 1)
        if turns.count == page.limit { break }
      }
    }
    if turns.count < page.limit, !isLast { take(rest) }
    return turns.reversed()
  }

  /// How many lines there are.
  func count() throws(SystemError) -> Int {
    var count = 0
    for byte in try readFile(path) where byte == 0x0A { count += 1 }
    return count
  }

  /// Removes the file. False when there is none.
  func remove() throws(SystemError) -> Bool {
    // Under the lock, so that an append that has begun is not lost in a file without a name.
    let descriptor: Descriptor
    do throws(SystemError) {
      descriptor = try Descriptor(unsafe open(path, O_RDWR | O_CLOEXEC), from: "open \(path)")
    } catch {
      if error.code == ENOENT { return false }
      throw error
    }
    try lock(descriptor, path)
    guard unsafe unlink(path) == 0 else {
      if errno == ENOENT { return false }
      throw SystemError("remove \(path)")
    }
    try syncFolder(above: path)
    return true
  }

  // MARK: Parts

  /// The file, open for append and locked. One that was removed while the lock was waited for is made anew.
  private func openLocked() throws(SystemError) -> Descriptor {
    while true {
      let number = unsafe open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
      let descriptor = try Descriptor(number, from: "open \(path)")
      try lock(descriptor, path)
      var status = stat()
      guard unsafe fstat(descriptor.number, &status) == 0 else { throw SystemError("stat \(path)") }
      if status.st_nlink > 0 { return descriptor }
    }
  }

  private func size(_ descriptor: borrowing Descriptor) throws(SystemError) -> Int {
    var status = stat()
    guard unsafe fstat(descriptor.number, &status) == 0 else { throw SystemError("stat \(path)") }
    return status.st_size
  }

  /// The last line, and whether its end is missing.
  private func lastLine(
    _ descriptor: borrowing Descriptor, size: Int
  ) throws(SystemError) -> (bytes: [UInt8], isTorn: Bool) {
    var start = size
    var bytes: [UInt8] = []
    while start > 0 {
      let from = max(0, start - 64 * 1024)
      bytes = try readBytes(descriptor, from..<start) + bytes
      start = from
      if let newline = bytes.dropLast().lastIndex(of: 0x0A) {
        bytes.removeFirst(newline + 1)
        break
      }
    }
    return (bytes, isTorn: bytes.last.map { $0 != 0x0A } ?? false)
  }

  private func readBytes(_ descriptor: borrowing Descriptor, _ range: Range<Int>) throws(SystemError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: range.count)
    var offset = 0
    while offset < bytes.count {
      let count = unsafe bytes.withUnsafeMutableBytes { buffer in
        unsafe pread(
          descriptor.number, buffer.baseAddress.map { unsafe $0 + offset }, buffer.count - offset,
          range.lowerBound + offset)
      }
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw SystemError("read \(path)") }
      // Somebody has cut a torn tail off meanwhile.
      if count == 0 { return Array(bytes.prefix(offset)) }
      offset += count
    }
    return bytes
  }

  private func truncate(_ descriptor: borrowing Descriptor, to size: Int) throws(SystemError) {
    guard ftruncate(descriptor.number, size) == 0 else { throw SystemError("truncate \(path)") }
  }

  private func sync(_ descriptor: borrowing Descriptor) throws(SystemError) {
    guard fdatasync(descriptor.number) == 0 else { throw SystemError("sync \(path)") }
  }
}
