import EventLoop
import Glibc
import JSON

/// The turns of one session: a file of JSON lines, appended to under a lock. All methods block.
struct SessionFile: Sendable {
  let path: String

  /// Appends `turn` and syncs it, so that it survives a power cut once this returns.
  ///
  /// The line is written with one write(2) to a file opened for append, under flock(2), so several processes can append
  /// concurrently. A torn last line is removed first. If writing or syncing the new line fails, it is removed again. A
  /// retry does not store the turn twice, because the last line is compared with it first.
  ///
  /// - Parameters:
  ///   - creates: whether to create the file if it does not exist.
  ///   - ifAbsent: whether to search earlier lines for the turn too, not only the last one.
  ///   - isWanted: called when the file is locked; false cancels the append.
  /// - Returns: false if the file does not exist and `creates` is false, or if `isWanted` returned false.
  @discardableResult
  func append(
    _ turn: Turn, creates: Bool = true, ifAbsent: Bool = false, while isWanted: () -> Bool = { true }
  ) throws(SystemError) -> Bool {
    guard let descriptor = try openLocked(creates: creates) else { return false }
    var size = try self.size(descriptor)
    guard isWanted() else {
      if size == 0 { unsafe unlink(path) }
      return false
    }
    let tail = try lastLine(descriptor, size: size)
    if tail.isTorn {
      size -= tail.bytes.count
      try truncate(descriptor, to: size)
    }
    // An earlier attempt may have written the turn but failed to sync it.
    let isLast = !tail.isTorn && tail.bytes.starts(with: turn.lineStart)
    var isThere = isLast
    if !isThere, ifAbsent { isThere = try contains(turn, descriptor, size: size) }
    if isThere {
      try sync(descriptor)
      try syncDirectory(above: path)
      return true
    }
    let line = turn.line(number: try count(descriptor, size: size) + 1)
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
    if size == 0 { try syncDirectory(above: path) }
    return true
  }

  private func contains(
    _ turn: Turn, _ descriptor: borrowing Descriptor, size: Int
  ) throws(SystemError) -> Bool {
    let start = turn.lineStart
    var isThere = false
    var older = 0
    try linesFromEnd(descriptor, size: size) { line, isTorn in
      isThere = !isTorn && line.starts(with: start)
      // Lines are in the order of completion, except for a few turns whose storing was retried later.
      if let at = Turn.time(atStartOf: line), at < turn.at { older += 1 }
      return !isThere && older < Self.maximumOlderTurns
    }
    return isThere
  }

  /// The number of turns with an earlier completion time after which the search for a turn stops.
  private static let maximumOlderTurns = 32

  /// Returns the turns of a page, oldest first: as many of the newest ones as ``Page/maximumBytes`` allows, but at
  /// least one. Lines that are not turns are skipped. Returns nil if the file does not exist, and an empty array if the
  /// turn ``Page/before`` does not.
  func turns(_ page: Page) throws(SystemError) -> [Turn]? {
    guard let descriptor = try openIfExists(path, O_RDONLY) else { return nil }
    var turns: [Turn] = []
    // Lines are read from the end; with `before`, the page starts after that turn is found.
    var isInPage = page.before == nil
    var bytes = 0
    try linesFromEnd(descriptor, size: try size(descriptor)) { line, isTorn in
      guard turns.count < page.limit else { return false }
      // An unterminated line was never acknowledged.
      if isTorn { return true }
      bytes += isInPage ? line.count : 0
      guard turns.isEmpty || bytes <= page.maximumBytes else { return false }
      guard let turn = Turn(line: line) else { return true }
      if isInPage { turns.append(turn) }
      if turn.id == page.before { isInPage = true }
      return turns.count < page.limit
    }
    return turns.reversed()
  }

  /// Returns the number of turns; 0 if the file does not exist.
  func count() throws(SystemError) -> Int {
    guard let descriptor = try openIfExists(path, O_RDONLY) else { return 0 }
    return try count(descriptor, size: try size(descriptor))
  }

  /// Returns the number of turns, which the last line contains. If it does not, the lines of the file are counted.
  private func count(_ descriptor: borrowing Descriptor, size: Int) throws(SystemError) -> Int {
    let end = try readBytes(descriptor, max(0, size - Self.maximumNumberBytes)..<size)
    if end.last == 0x0A, let number = Turn.number(atEndOf: end.dropLast()) { return number }
    var count = 0
    for start in stride(from: 0, to: size, by: Self.blockBytes) {
      for byte in try readBytes(descriptor, start..<min(size, start + Self.blockBytes)) where byte == 0x0A {
        count += 1
      }
    }
    return count
  }

  /// An upper bound for the size of the last member of a line.
  private static let maximumNumberBytes = 64

  /// Removes the file. Returns false if it does not exist.
  func remove() throws(SystemError) -> Bool {
    // The lock keeps a concurrent append from writing to a file that no longer has a name.
    guard let descriptor = try openIfExists(path, O_RDWR) else { return false }
    try lock(descriptor, path)
    guard unsafe unlink(path) == 0 else {
      if errno == ENOENT { return false }
      throw SystemError("remove \(path)")
    }
    try syncDirectory(above: path)
    return true
  }

  /// Removes the file if the time of its newest turn is before `time`, an RFC 3339 timestamp. A file without a turn has
  /// the time of its last change.
  ///
  /// - Returns: the size of the file; nil if it is not that old or does not exist.
  func remove(ifOlderThan time: String, isDryRun: Bool) throws(SystemError) -> Int? {
    guard let descriptor = try openLocked(creates: false) else { return nil }
    var status = stat()
    guard unsafe fstat(descriptor.number, &status) == 0 else { throw SystemError("stat \(path)") }
    let newest = try turns(Page(limit: 1))?.last?.at ?? Timestamp.text(status.st_mtim)
    guard newest < time else { return nil }
    if !isDryRun {
      guard unsafe unlink(path) == 0 else { throw SystemError("remove \(path)") }
      try syncDirectory(above: path)
    }
    return status.st_size
  }

  // MARK: Implementation

  /// Opens the file for append and locks it. Opens it again if it was removed while waiting for the lock. Returns nil
  /// if it does not exist and `creates` is false.
  private func openLocked(creates: Bool) throws(SystemError) -> Descriptor? {
    while true {
      guard let descriptor = try open(creates: creates) else { return nil }
      try lock(descriptor, path)
      var status = stat()
      guard unsafe fstat(descriptor.number, &status) == 0 else { throw SystemError("stat \(path)") }
      if status.st_nlink > 0 { return descriptor }
    }
  }

  private func open(creates: Bool) throws(SystemError) -> Descriptor? {
    if creates { return try openOrCreate(path, O_APPEND) }
    return try openIfExists(path, O_RDWR | O_APPEND | O_NOFOLLOW)
  }

  private func size(_ descriptor: borrowing Descriptor) throws(SystemError) -> Int {
    var status = stat()
    guard unsafe fstat(descriptor.number, &status) == 0 else { throw SystemError("stat \(path)") }
    return status.st_size
  }

  /// Returns the last line, and whether its line feed is missing.
  private func lastLine(
    _ descriptor: borrowing Descriptor, size: Int
  ) throws(SystemError) -> (bytes: [UInt8], isTorn: Bool) {
    var last: (bytes: [UInt8], isTorn: Bool) = ([], false)
    try linesFromEnd(descriptor, size: size) { line, isTorn in
      last = (line, isTorn)
      return false
    }
    return last
  }

  private static let blockBytes = 64 * 1024

  /// Passes the lines to `take`, from the last to the first and without line feeds, until it returns false. The last
  /// line is torn if its line feed is missing. Empty lines are skipped.
  ///
  /// Reads blocks from the end, so that the newest turns of a long session cost no more than those of a short one. Each
  /// byte is read once, however long its line is.
  private func linesFromEnd(
    _ descriptor: borrowing Descriptor, size: Int, _ take: (_ line: [UInt8], _ isTorn: Bool) -> Bool
  ) throws(SystemError) {
    var isTorn = true
    // The parts of the current line, in reverse order.
    var pieces: [[UInt8]] = []
    func give() -> Bool {
      defer {
        pieces = []
        isTorn = false
      }
      let line = Array(pieces.reversed().joined())
      return line.isEmpty || take(line, isTorn)
    }
    var end = size
    while end > 0 {
      let start = max(0, end - Self.blockBytes)
      let block = try readBytes(descriptor, start..<end)
      var upper = block.count
      while let newline = block[..<upper].lastIndex(of: 0x0A) {
        pieces.append(Array(block[(newline + 1)..<upper]))
        guard give() else { return }
        upper = newline
      }
      pieces.append(Array(block[..<upper]))
      end = start
    }
    _ = give()
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
      // Another process has truncated a torn line in the meantime.
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
