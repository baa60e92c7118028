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
  ///
  /// - Parameters:
  ///   - creates: whether the file is made when it is not there.
  ///   - ifAbsent: whether the turn may be there already, and not only at the end.
  ///   - isWanted: asked when the file is locked.
  /// - Returns: false when the file is not there and is not to be made, or the turn is not wanted any more.
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
    // A try before this one may have failed only after it had written.
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
      // Turns are appended when they are complete, but for a few that had to wait.
      if let at = Turn.time(atStartOf: line), at < turn.at { older += 1 }
      return !isThere && older < Self.maximumOlderTurns
    }
    return isThere
  }

  /// How many turns that were complete before are looked at for one that may be there.
  private static let maximumOlderTurns = 32

  /// The newest turns of a page, oldest first, as many as its bytes allow, one at least. A line that is no turn is
  /// passed over. Nil when there is no file, an empty page when the turn that it is to come before is not there.
  func turns(_ page: Page) throws(SystemError) -> [Turn]? {
    guard let descriptor = try openIfExists(path, O_RDONLY) else { return nil }
    var turns: [Turn] = []
    // With a turn named that they are to come before: not until it was met, on the way from the end.
    var isInPage = page.before == nil
    var bytes = 0
    try linesFromEnd(descriptor, size: try size(descriptor)) { line, isTorn in
      guard turns.count < page.limit else { return false }
      // What follows the last line end was never promised.
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

  /// How many turns there are. 0 when there is no file.
  func count() throws(SystemError) -> Int {
    guard let descriptor = try openIfExists(path, O_RDONLY) else { return 0 }
    return try count(descriptor, size: try size(descriptor))
  }

  /// The last line says how many turns there are. In a file that was written otherwise the lines are counted.
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

  /// More than the last member of a line takes.
  private static let maximumNumberBytes = 64

  /// Removes the file. False when there is none.
  func remove() throws(SystemError) -> Bool {
    // Under the lock, so that an append that has begun is not lost in a file without a name.
    guard let descriptor = try openIfExists(path, O_RDWR) else { return false }
    try lock(descriptor, path)
    guard unsafe unlink(path) == 0 else {
      if errno == ENOENT { return false }
      throw SystemError("remove \(path)")
    }
    try syncDirectory(above: path)
    return true
  }

  // MARK: Parts

  /// The file, open for append and locked. One that was removed while the lock was waited for is made anew. Nil when it
  /// is not there and is not to be made.
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

  /// The last line, and whether its end is missing.
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

  /// Gives the lines from the last to the first, without their ends, as long as `take` returns true. The last one is
  /// torn when its end is missing; an empty line is none.
  ///
  /// From the end, block by block, so that a long session costs no more than a short one, and each byte is looked at
  /// once however long its line is.
  private func linesFromEnd(
    _ descriptor: borrowing Descriptor, size: Int, _ take: (_ line: [UInt8], _ isTorn: Bool) -> Bool
  ) throws(SystemError) {
    var isTorn = true
    // The pieces of the line that is being read, the last of them first.
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
