import EventLoop
import Glibc

/// Returns the names in a directory, without `.` and `..` (readdir(3)), or none if the directory does not exist.
/// Blocks.
func fileNames(in directory: String) throws(SystemError) -> [String] {
  guard let stream = unsafe opendir(directory) else {
    if errno == ENOENT { return [] }
    throw SystemError("open \(directory)")
  }
  defer { unsafe closedir(stream) }
  var names: [String] = []
  while let entry = unsafe readdir(stream) {
    let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
      unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
    }
    if name != ".", name != ".." { names.append(name) }
  }
  return names
}

/// Replaces the content of `path` atomically: writes a temporary file, syncs it and renames it (rename(2)). Blocks.
func replaceFile(_ path: String, with content: [UInt8]) throws(SystemError) {
  let temporary = "\(path).\(Identifier.make()).tmp"
  do throws(SystemError) {
    let descriptor = try Descriptor(
      unsafe open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600), from: "make \(temporary)")
    let written = unsafe write(descriptor.number, content, content.count)
    guard written == content.count else {
      throw SystemError("write \(temporary)", code: written < 0 ? errno : ENOSPC)
    }
    guard fdatasync(descriptor.number) == 0 else { throw SystemError("sync \(temporary)") }
    guard unsafe rename(temporary, path) == 0 else { throw SystemError("rename \(temporary)") }
  } catch {
    unsafe unlink(temporary)
    throw error
  }
  try syncDirectory(above: path)
}

/// Opens a file of the store for reading and writing. Creates it if it does not exist, and does not follow a symbolic
/// link. Blocks.
func openOrCreate(_ path: String, _ flags: CInt = 0) throws(SystemError) -> Descriptor {
  try Descriptor(unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | flags, 0o600), from: "open \(path)")
}

/// Opens a file, or returns nil if it does not exist. Blocks.
func openIfExists(_ path: String, _ flags: CInt) throws(SystemError) -> Descriptor? {
  let number = unsafe open(path, flags | O_CLOEXEC)
  if number < 0, errno == ENOENT { return nil }
  return try Descriptor(number, from: "open \(path)")
}

/// Acquires an exclusive lock on an open file or directory (flock(2)). Closing the descriptor releases it. Blocks.
func lock(_ descriptor: borrowing Descriptor, _ path: String) throws(SystemError) {
  while flock(descriptor.number, LOCK_EX) != 0 {
    guard errno == EINTR else { throw SystemError("lock \(path)") }
  }
}

/// Throws unless `path` is a directory in which files can be created, or such a directory could be created there.
/// Creates nothing. Blocks.
func checkDirectory(_ path: String) throws(SystemError) {
  var status = stat()
  guard unsafe stat(path, &status) != 0 else {
    guard status.st_mode & S_IFMT == S_IFDIR else { throw SystemError("use \(path)", code: ENOTDIR) }
    guard unsafe access(path, W_OK | X_OK) == 0 else { throw SystemError("write to \(path)") }
    return
  }
  // A dangling symbolic link exists, so no directory can be created under its name.
  guard errno == ENOENT, unsafe lstat(path, &status) != 0 else { throw SystemError("use \(path)", code: ENOENT) }
  guard let slash = path.lastIndex(of: "/") else { return try checkDirectory(".") }
  try checkDirectory(slash == path.startIndex ? "/" : String(path[..<slash]))
}

/// Creates a directory and its missing parents, accessible only to the owner (mkdir(2)). Blocks.
func createDirectories(_ path: String) throws(SystemError) {
  if unsafe mkdir(path, 0o700) == 0 { return try syncDirectory(above: path) }
  if errno == EEXIST { return }
  guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
    throw SystemError("create the directory \(path)")
  }
  try createDirectories(String(path[..<slash]))
  // Retries only once: a parent that is a dangling symbolic link exists but cannot contain a directory, so further
  // attempts would recurse without end.
  if unsafe mkdir(path, 0o700) == 0 { return try syncDirectory(above: path) }
  guard errno == EEXIST else { throw SystemError("create the directory \(path)") }
}

/// Makes the name of a new file or directory durable by syncing its parent directory (fsync(2)). Blocks.
func syncDirectory(above path: String) throws(SystemError) {
  let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
  let descriptor = try Descriptor(unsafe open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), from: "open \(directory)")
  guard fsync(descriptor.number) == 0 else { throw SystemError("sync \(directory)") }
}

/// Returns the content of a file, truncated to `maximumBytes`. Blocks.
func readFile(_ path: String, maximumBytes: Int = .max) throws(SystemError) -> [UInt8] {
  let descriptor = try Descriptor(unsafe open(path, O_RDONLY | O_CLOEXEC), from: "open \(path)")
  var content: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 64 * 1024)
  while true {
    let count = unsafe read(descriptor.number, &buffer, buffer.count)
    if count < 0, errno == EINTR { continue }
    guard count >= 0 else { throw SystemError("read \(path)") }
    content.append(contentsOf: buffer.prefix(count))
    if count == 0 || content.count >= maximumBytes { return Array(content.prefix(maximumBytes)) }
  }
}
