import EventLoop
import Glibc

/// Finished messages in plain files, a folder a user. Methods wait for the disk on a thread of the pool, and may be
/// called from any loop.
struct Store: Sendable {
  private let root: String
  private let pool: BlockingPool

  init(root: String, pool: BlockingPool) {
    self.root = root
    self.pool = pool
  }

  /// The user's newest turns of a session, oldest first. A session that is not there has none.
  func turns(of session: String, user: User, newest limit: Int) async throws(SystemError) -> [Turn] {
    guard limit > 0 else { return [] }
    let file = SessionFile(path: folder(of: user) + "/" + session + ".jsonl")
    return try await pool.run { () throws(SystemError) in try file.turns(newest: limit) }
  }

  /// Appends a turn, trying again with growing pauses when that fails.
  ///
  /// - Throws: the last failure.
  func append(_ turn: Turn, to session: String, user: User) async throws(SystemError) {
    let folder = folder(of: user)
    try await pool.run { () throws(SystemError) in
      var pause: CUnsignedInt = 50_000
      while true {
        do throws(SystemError) {
          try makeFolders(folder)
          return try SessionFile(path: folder + "/" + session + ".jsonl").append(turn)
        } catch {
          guard pause < 1_000_000 else { throw error }
          usleep(pause)
          pause *= 4
        }
      }
    }
  }

  private func folder(of user: User) -> String { "\(root)/users/\(user.folder)/sessions" }
}

/// Looks whether `path` is a folder in which files can be made, or could be made one, without making anything. Blocks.
func checkFolder(_ path: String) throws(SystemError) {
  var status = stat()
  guard unsafe stat(path, &status) != 0 else {
    guard status.st_mode & S_IFMT == S_IFDIR else { throw SystemError("use \(path)", code: ENOTDIR) }
    guard unsafe access(path, W_OK | X_OK) == 0 else { throw SystemError("write to \(path)") }
    return
  }
  // A link to nothing is there, and yet no folder can be made under its name.
  guard errno == ENOENT, unsafe lstat(path, &status) != 0 else { throw SystemError("use \(path)", code: ENOENT) }
  guard let slash = path.lastIndex(of: "/") else { return try checkFolder(".") }
  try checkFolder(slash == path.startIndex ? "/" : String(path[..<slash]))
}

/// Makes a folder and those above it, for the owner only (mkdir(2)). Blocks.
func makeFolders(_ path: String) throws(SystemError) {
  if unsafe mkdir(path, 0o700) == 0 { return try syncFolder(above: path) }
  if errno == EEXIST { return }
  guard errno == ENOENT, let slash = path.lastIndex(of: "/"), slash > path.startIndex else {
    throw SystemError("make the folder \(path)")
  }
  try makeFolders(String(path[..<slash]))
  // Once more and no oftener: a link to nothing is there and yet holds no folder.
  if unsafe mkdir(path, 0o700) == 0 { return try syncFolder(above: path) }
  guard errno == EEXIST else { throw SystemError("make the folder \(path)") }
}

/// Makes the name of a new file or folder durable (fsync(2) of the folder that it is in). Blocks.
func syncFolder(above path: String) throws(SystemError) {
  let folder = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
  let descriptor = try Descriptor(unsafe open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), from: "open \(folder)")
  guard fsync(descriptor.number) == 0 else { throw SystemError("sync \(folder)") }
}
