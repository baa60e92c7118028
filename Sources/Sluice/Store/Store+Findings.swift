import EventLoop
import Glibc

extension Store {
  /// Checks that the store can be written to and has space left. Blocks.
  func findings() -> [Finding] {
    let probe = root + "/.doctor"
    do throws(SystemError) {
      try createDirectories(root)
      try replaceFile(probe, with: Array("written by a check\n".utf8))
      unsafe unlink(probe)
    } catch {
      if error.code == ENOSPC || error.code == EDQUOT { return [Self.full] }
      return [
        Finding(
          .storeUnwritable, "The store cannot be written to: \(unsafe String(cString: strerror(error.code))).",
          fix: "Give the directory that SLUICE_STATE names to the service's user; under systemd, use StateDirectory=.")
      ]
    }
    var status = statvfs()
    guard unsafe statvfs(root, &status) == 0, status.f_blocks > 0 else { return [] }
    let isFull =
      status.f_bavail * 100 < status.f_blocks || (status.f_files > 0 && status.f_favail * 100 < status.f_files)
    return isFull ? [Self.full] : []
  }

  private static let full = Finding(
    .storeFull, "The store's file system has less than 1 % of its space or of its files left.",
    fix: "Free space, or remove old sessions with \"sluice prune\".")
}
